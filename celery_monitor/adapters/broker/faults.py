"""Translates every exception of a broker library to SourceLostError, with advice for a person.

The exceptions of libraries that parse untrusted bytes cannot be listed: an invalid header raised zlib.error, an invalid
decimal raised ArithmeticError. So the adapter's public methods run inside a ``Boundary``, which translates all of them.

The text of an exception is used only if it comes from the broker or the operating system. Others may contain the URL.
"""

import contextlib
import re
import struct
from collections.abc import Callable
from typing import Final

import amqp.exceptions
import redis.exceptions

from celery_monitor.adapters.broker import redis_faults
from celery_monitor.adapters.broker.frames import ConsumerCancelledError, StreamClosedError
from celery_monitor.errors import MonitorError, SourceLostError
from celery_monitor.network import PASSING, Fault, ServerTerms, chain, explain, fault_of, remedy

IGNORE_ERRORS: Final = contextlib.suppress(Exception)
"""For cleaning up a connection that is given up anyway: errors make no difference."""

_OPTIONS: Final = (AttributeError, KeyError, TypeError, ValueError)
"""Exceptions of the libraries for options that they do not accept."""
_GARBLED: Final = (
    redis.exceptions.ConnectionError,
    redis.exceptions.InvalidResponse,
    amqp.exceptions.UnexpectedFrame,
    amqp.exceptions.FrameSyntaxError,
    IndexError,
    struct.error,
)
"""Exceptions of the libraries for an answer in another protocol, or for a closed connection."""
_LIMIT: Final = re.compile(r"limit .*reached|reached .*limit")
"""Matches RabbitMQ's errors about a limit of connections, channels or queues."""
_TEXT_LIMIT: Final = 300
_LOG_IN: Final = (0, 0)  # the method that RabbitMQ reports when it rejects the user
_CREDENTIALS: Final = (
    "check the user and password in broker.url (percent-encode special characters: @ as %40, / as %2F, : as %3A)"
)
_SERVER: Final = ServerTerms(
    address="host and port in broker.url",
    protocol="use amqp:// for RabbitMQ or redis:// for Redis in broker.url, and amqps:// or rediss:// (or "
    "broker.use_ssl) if and only if the port uses TLS",
    trust="check broker.use_ssl (ca_certs for amqps, ssl_ca_certs for rediss)",
    client_certificate="set certfile and keyfile (for Redis ssl_certfile and ssl_keyfile) in broker.use_ssl",
)


class Boundary:
    """A ``with`` block that raises ``error_for(exc)`` for any exception except those of this program.

    ``error_for`` may also close the connection that raised it. A boundary has no state, so it can be reused for each
    message, which costs a quarter of a generator-based context manager.
    """

    __slots__ = ("_error_for",)

    def __init__(self, error_for: Callable[[Exception], SourceLostError]) -> None:
        self._error_for = error_for

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, MonitorError):
            raise self._error_for(exc) from exc


def describe(exc: BaseException) -> str:
    """What happened, without secrets."""
    if isinstance(exc, ConsumerCancelledError):
        return "the broker cancelled the consumer (was the queue deleted?)"
    if isinstance(exc, StreamClosedError):
        return "the connection is closed"
    if isinstance(exc, TimeoutError | redis.exceptions.TimeoutError):
        return "the broker does not answer"
    if isinstance(exc, amqp.exceptions.AMQPError):
        text = str(exc.reply_text or exc)
    elif isinstance(exc, OSError | redis.exceptions.RedisError):
        text = redis_faults.describe(exc) or explain(exc) or str(exc)
    else:
        text = type(exc).__name__
    return re.sub(r"[^\x20-\x7e]+", " ", text)[:_TEXT_LIMIT]


def publishers_blocked() -> SourceLostError:
    """The error for an AMQP broker that blocks publishers because of an alarm."""
    return SourceLostError(
        "the broker blocks publishers (memory or disk alarm)",
        "run rabbitmqctl list_alarms, and free or add memory or disk space",
    )


def lost(
    exc: BaseException, doing: str, permissions: str | None = None, *, connecting: bool = False
) -> SourceLostError:
    """The error for an exception raised while ``doing`` something, with advice.

    ``permissions``: advice if RabbitMQ denies an operation to the user. ``connecting``: the exception may be caused by
    invalid transport options.
    """
    message = f"{doing}: {describe(exc)}"
    if isinstance(exc, amqp.exceptions.AccessRefused) and exc.method_sig != _LOG_IN:
        return SourceLostError(message, permissions)
    if (known_remedy := next(filter(None, map(_remedy, chain(exc))), None)) is not None:
        return SourceLostError(message, known_remedy)
    if (hint := next(filter(None, map(_hint, chain(exc))), None)) is not None:
        return SourceLostError(message, hint=hint)
    fault = fault_of(exc) or _fault(exc)
    if fault is None:
        options = (
            "check broker.transport_options, broker.use_ssl and the query of broker.url: the transport rejects them"
        )
        blamed = connecting and any(isinstance(error, _OPTIONS) for error in chain(exc))
        return SourceLostError(message, options if blamed else None)
    if fault in PASSING:
        return SourceLostError(message, hint=remedy(fault, _SERVER))
    return SourceLostError(message, remedy(fault, _SERVER))


def _hint(exc: BaseException) -> str | None:
    """Advice for an error of the broker that may disappear by itself; None for others."""
    if isinstance(exc, amqp.exceptions.AMQPError) and _LIMIT.search(str(exc.reply_text)):
        return (
            "the monitor needs three connections and two queues: raise the limit (rabbitmqctl "
            "set_vhost_limits or set_user_limits), or find out who uses it up (rabbitmqctl list_connections)"
        )
    return redis_faults.hint(exc)


def _fault(exc: BaseException) -> Fault | None:
    """The network fault that an exception of these libraries indicates; None if there is none."""
    if isinstance(exc, _GARBLED) or (isinstance(exc, OSError) and exc.errno is None):
        return Fault.CLOSED
    return None


def _remedy(exc: BaseException) -> str | None:
    """Advice for an error of the broker, except errors while declaring, for which ``declare`` gives advice."""
    if isinstance(exc, amqp.exceptions.NotAllowed) and not _LIMIT.search(str(exc.reply_text)):
        return (
            "create the virtual host (rabbitmqctl add_vhost) or correct the end of broker.url (write // for /), and "
            "grant the user access to it (rabbitmqctl set_permissions -p VHOST USER ...)"
        )
    if isinstance(exc, amqp.exceptions.AccessRefused | redis.exceptions.AuthenticationError):
        return _CREDENTIALS
    return redis_faults.remedy(exc)
