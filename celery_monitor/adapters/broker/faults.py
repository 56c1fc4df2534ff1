"""What went wrong, in words, and what a person can do: foreign exceptions → SourceLostError.

Texts of exceptions are taken only where they come from the broker or the operating system; others may hold the URL.
"""

import re
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Final

import amqp.exceptions
import kombu.exceptions
import redis.exceptions
import redis.sentinel

from celery_monitor.adapters.broker.frames import ConsumerCancelledError, StreamClosedError
from celery_monitor.errors import SourceLostError

FOREIGN: Final = (
    OSError,  # also TimeoutError, ssl.SSLError, socket.gaierror
    amqp.exceptions.AMQPError,
    amqp.exceptions.MessageNacked,  # no AMQPError
    redis.exceptions.RedisError,
    kombu.exceptions.KombuError,
    ConsumerCancelledError,
    StreamClosedError,
    # What these libraries raise for options that they do not take, and on connections cut under their hands.
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
    # What a peer that sends nonsense makes of the readers. ArithmeticError: py-amqp's of a header's timestamp that no
    # datetime holds, kombu's of a "decimal" in an envelope on Redis that is none; any process can publish those.
    ArithmeticError,
    IndexError,
    struct.error,
)

_TEXT_LIMIT: Final = 300
_REDIS_RULES: Final = "~* &* +@connection +@pubsub +@read +@list +@set +@sortedset +@transaction +@scripting +time"
_LOG_IN: Final = (0, 0)  # RabbitMQ names no method when it refuses the user
_CREDENTIALS: Final = (
    "check user and password in broker.url (percent-encode special characters: @ as %40, / as %2F, : as %3A)"
)


def describe(exc: BaseException) -> str:
    """What happened, as far as it can be told without a secret."""
    if isinstance(exc, ConsumerCancelledError):
        return "the broker cancelled the consumer (was the queue deleted?)"
    if isinstance(exc, StreamClosedError):
        return "the connection is closed"
    if isinstance(exc, TimeoutError | redis.exceptions.TimeoutError):
        return "the broker does not answer"
    if isinstance(exc, amqp.exceptions.AMQPError):
        text = str(exc.reply_text or exc)
    elif isinstance(exc, ssl.SSLCertVerificationError):
        text = f"TLS: {exc.verify_message}"
    elif isinstance(exc, ssl.SSLError):
        text = f"TLS: {exc.reason or type(exc).__name__}"
    elif isinstance(exc, OSError):
        text = exc.strerror or str(exc)
    elif isinstance(exc, redis.exceptions.RedisError):
        text = str(exc)
    else:
        text = type(exc).__name__
    return re.sub(r"[^\x20-\x7e]+", " ", text)[:_TEXT_LIMIT]


def lost(exc: BaseException, doing: str, permissions: str | None = None) -> SourceLostError:
    """The error for whatever happened while ``doing``, with a remedy where a person must act.

    ``permissions`` is the remedy for a user of RabbitMQ who is logged in and may not do it.
    """
    if isinstance(exc, amqp.exceptions.AccessRefused) and exc.method_sig != _LOG_IN:
        return SourceLostError(f"{doing}: {describe(exc)}", permissions)
    return SourceLostError(f"{doing}: {describe(exc)}", next(filter(None, map(_remedy, _chain(exc))), None))


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception and those that it wraps: redis-py hides a TLS error in a ConnectionError."""
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _remedy(exc: BaseException) -> str | None:  # noqa: PLR0911 - a table of faults
    """What to do about it, None when waiting may be enough. Faults of declaring are told by those who declare."""
    if isinstance(exc, amqp.exceptions.NotAllowed):
        return (
            "create the virtual host (rabbitmqctl add_vhost) or correct the end of broker.url (/ is written //), and "
            "give the user access to it (rabbitmqctl set_permissions -p VHOST USER ...)"
        )
    if isinstance(exc, amqp.exceptions.AccessRefused | redis.exceptions.AuthenticationError):
        return _CREDENTIALS
    if isinstance(exc, redis.exceptions.NoPermissionError):
        return f"allow the user: ACL SETUSER NAME {_REDIS_RULES}"
    if isinstance(exc, redis.sentinel.MasterNotFoundError):
        return "set broker.transport_options.master_name to the name that the sentinels know, and list all sentinels"
    if isinstance(exc, socket.gaierror):
        return "check the host name in broker.url"
    if isinstance(exc, ssl.SSLError):
        return "check broker.use_ssl (ca_certs for amqps, ssl_ca_certs for rediss), and that the port speaks TLS"
    if isinstance(exc, AttributeError | KeyError | TypeError | ValueError):
        return "check broker.transport_options and broker.use_ssl: the transport does not take them as they are"
    return None
