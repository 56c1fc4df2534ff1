"""Creates connections from the settings. kombu parses the URL and the options, so they work as they do in Celery."""

import re
import shlex
import socket
from typing import Any, Final

from kombu import Connection, Exchange
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_monitor.adapters.broker import tls
from celery_monitor.adapters.broker.addresses import KnownAddress, Rotation
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings, check_urls
from celery_monitor.settings.secret import redact_url

CONNECT_TIMEOUT: Final = 5.0
"""Maximum seconds without an answer, while connecting (TCP, TLS and log-in) and afterwards."""

# kombu's consumers on Redis requeue messages that are unacknowledged for longer than visibility_timeout. If it differs
# from the fleet's, long tasks would run twice.
_FORCED: Final = {"ack_emulation": False}
_FANOUT_ONLY: Final = ("redis", "rediss", "sentinel")
_EVENTS_FANOUT: Final = ("redis", "gcpubsub")
"""kombu drivers on which Celery publishes events to a fanout exchange."""


class Dialer:
    """Creates kombu connections to one of the URLs of the fleet's broker. Does no I/O. For use by one thread."""

    def __init__(self, settings: BrokerSettings, known: KnownAddress | None = None) -> None:
        """``known``: shared by all dialers of the same broker."""
        self._settings = settings
        self._source = settings.url_source()
        self.rotation = Rotation(known or KnownAddress())
        """Callers report to it when they have opened a connection, and when something arrived on it."""
        self.address: str | None = None
        """Of several URLs, the one that ``dial`` chose, without credentials, for errors; None if there is only one."""

    @property
    def url(self) -> str:
        """The current URL, including secrets."""
        return self._source.get() or ""

    @property
    def kind(self) -> str:
        """``amqp``, ``redis`` or ``memory``."""
        scheme = self.url.partition("://")[0].partition("+")[0].lower()
        if scheme in _FANOUT_ONLY:
            return "redis"
        return "memory" if scheme == "memory" else "amqp"

    def dial(self, *, heartbeat: float = 0, timeout: float = CONNECT_TIMEOUT, **options: Any) -> Connection:  # noqa: ANN401 - a transport's options are of any type
        """A connection object that is not connected yet. ``options``: defaults for the user's transport options.

        Raises SourceLostError if the URL is invalid, and ValueError or others if the transport rejects an option.
        """
        urls, self.address = self.url, None
        try:
            check_urls(urls)  # again, because a file with the URL may have changed
        except ValueError as exc:
            raise SourceLostError("invalid broker URL", f"broker.url {exc}") from None
        addresses = urls.split(";")
        sentinels = urls.lower().startswith("sentinel")
        if sentinels:  # redis-py tries all sentinels, one after the other
            timeout /= len(addresses)
        else:
            urls = self.rotation.next(addresses)
            self.address = _location(urls) if len(addresses) > 1 else None
        defaults = _DEFAULTS[self.kind](timeout, self._settings.heartbeat)
        arguments = {**defaults, **options, **self._settings.transport_options, **_FORCED}
        if sentinels:
            arguments["sentinel_kwargs"] = _sentinel_options(arguments)
        connection = Connection(
            urls,
            ssl=True,  # set below; without it, kombu warns about rediss:// and disables verification
            connect_timeout=timeout,
            heartbeat=heartbeat,
            transport_options=arguments,
        )
        tls.apply(connection, self._settings, self.kind, urls.split(";")[0])
        return connection

    def permissions(self, connection: Connection) -> str:
        """Advice on how to grant the user of ``connection`` the permissions on RabbitMQ that the monitor needs."""
        names = [re.escape(name).replace(r"\-", "-") for name in (self._settings.queue.name, self._settings.exchange)]
        control = re.escape(self._settings.control_exchange).replace(r"\-", "-")
        own = [rf"{control}\.pidbox", rf"reply\.{control}\.pidbox", r".*\.reply\.celery\.pidbox"]
        pattern = shlex.quote(f"^({'|'.join([*names, *own])})$")
        vhost, user = shlex.quote(connection.virtual_host or "/"), shlex.quote(connection.userid or "guest")
        return (
            "grant the permissions that the monitor needs (this replaces the user's current ones): rabbitmqctl "
            "set_permissions "
            f"-p {vhost} {user} {pattern} {pattern} {pattern}"
        )


def _location(url: str) -> str:
    """Host, port and path."""
    return redact_url(url).partition("://")[2].rpartition("@")[2].partition("?")[0].rstrip("/")


def event_exchange(connection: Connection, name: str) -> Exchange:
    """The exchange of the fleet's events, as celery.events.event.get_exchange returns it.

    Importing that function would import all of Celery, which takes a tenth of the start and some 10 MB.
    """
    return Exchange(name, type="fanout" if connection.transport.driver_type in _EVENTS_FANOUT else "topic")


def _amqp_defaults(_timeout: float, heartbeat: float) -> dict[str, Any]:
    # py-amqp's default closes a connection whose data is unacknowledged for a second, as in a short network fault.
    return {"socket_settings": {socket.TCP_USER_TIMEOUT: int(2000 * heartbeat)}}


def _redis_defaults(timeout: float, _heartbeat: float) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "socket_keepalive": True}


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options for connections to a Sentinel: those for Redis, unless the user sets others."""
    # By default, redis-py tries each sentinel four times with pauses of up to seconds, so a single silent sentinel
    # would take longer than the monitor waits in total. With a password in sentinel_kwargs, it would have no timeout.
    own = {key: value for key, value in options.items() if key.startswith("socket_")}
    return {**own, "retry": Retry(NoBackoff(), 0), **(options.get("sentinel_kwargs") or {})}


def _memory_defaults(_timeout: float, _heartbeat: float) -> dict[str, Any]:
    return {"polling_interval": 0.02}  # kombu's default of a second would delay the stream


_DEFAULTS: Final = {"amqp": _amqp_defaults, "redis": _redis_defaults, "memory": _memory_defaults}
