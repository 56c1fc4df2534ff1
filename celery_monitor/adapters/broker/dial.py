"""Settings → connections. kombu reads the URL and the options, so that they mean what they mean to Celery."""

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

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for TCP, TLS and log-in together to give a sign of life; also for each answer after that."""

# kombu's consumers on Redis put back what has been unacknowledged for longer than their visibility_timeout: with
# another one than the fleet's, long tasks would run twice.
_FORCED: Final = {"ack_emulation": False}
_FANOUT_ONLY: Final = ("redis", "rediss", "sentinel")
_EVENTS_FANOUT: Final = ("redis", "gcpubsub")
"""Drivers of kombu on which Celery sends events to everybody who listens."""


class Dialer:
    """Makes kombu connections to the fleet's broker, to one of its URLs. Does no I/O itself. For one thread."""

    def __init__(self, settings: BrokerSettings, known: KnownAddress | None = None) -> None:
        """``known`` is shared by those who connect to the same broker."""
        self._settings = settings
        self._source = settings.url_source()
        self.rotation = Rotation(known or KnownAddress())
        """Is to be told when a connection was opened, and when something arrived on it."""

    @property
    def url(self) -> str:
        """The URL as it is now, with its secrets."""
        return self._source.get() or ""

    @property
    def kind(self) -> str:
        """``amqp``, ``redis`` or ``memory``."""
        scheme = self.url.partition("://")[0].partition("+")[0].lower()
        if scheme in _FANOUT_ONLY:
            return "redis"
        return "memory" if scheme == "memory" else "amqp"

    def dial(self, *, heartbeat: float = 0, timeout: float = CONNECT_TIMEOUT, **options: Any) -> Connection:  # noqa: ANN401 - a transport's options are of any type
        """A connection that is not connected yet. ``options`` are defaults under the user's transport options.

        Raises SourceLostError for a URL that cannot be used, ValueError and others for options that the transport does
        not take.
        """
        urls = self.url
        try:
            check_urls(urls)  # the settings did once, but a file may hold another one by now
        except ValueError as exc:
            raise SourceLostError("invalid broker URL", f"broker.url {exc}") from None
        addresses = urls.split(";")
        sentinels = urls.lower().startswith("sentinel")
        if sentinels:  # of one master; redis-py asks one after the other
            timeout /= len(addresses)
        else:
            urls = self.rotation.next(addresses)
        defaults = _DEFAULTS[self.kind](timeout, self._settings.heartbeat)
        arguments = {**defaults, **options, **self._settings.transport_options, **_FORCED}
        if sentinels:
            arguments["sentinel_kwargs"] = _sentinel_options(arguments)
        connection = Connection(
            urls,
            ssl=True,  # whatever it is to be: kombu warns of rediss:// without options, and turns verification off
            connect_timeout=timeout,
            heartbeat=heartbeat,
            transport_options=arguments,
        )
        tls.apply(connection, self._settings, self.kind, urls.split(";")[0])
        return connection

    def permissions(self, connection: Connection) -> str:
        """What to run so that the user of ``connection`` may do on RabbitMQ what the monitor does."""
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


def event_exchange(connection: Connection, name: str) -> Exchange:
    """The exchange of the fleet's events, as celery.events.event.get_exchange describes it.

    Importing that module imports all of Celery, which is a tenth of the start and some 10 MB, for these lines.
    """
    return Exchange(name, type="fanout" if connection.transport.driver_type in _EVENTS_FANOUT else "topic")


def _amqp_defaults(_timeout: float, heartbeat: float) -> dict[str, Any]:
    # py-amqp ends a connection whose data stays unconfirmed for one second: a short fault of the network.
    return {"socket_settings": {socket.TCP_USER_TIMEOUT: int(2000 * heartbeat)}}


def _redis_defaults(timeout: float, _heartbeat: float) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "socket_keepalive": True}


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """How to connect to a Sentinel: as to a Redis, but for what the user says of it."""
    # redis-py asks each of them four times, with up to seconds in between, before it asks the next one: a single silent
    # one would take longer than all that the monitor waits for. And with a password of theirs it has no timeout at all.
    own = {key: value for key, value in options.items() if key.startswith("socket_")}
    return {**own, "retry": Retry(NoBackoff(), 0), **(options.get("sentinel_kwargs") or {})}


def _memory_defaults(_timeout: float, _heartbeat: float) -> dict[str, Any]:
    return {"polling_interval": 0.02}  # kombu's own second would be the lag of the stream


_DEFAULTS: Final = {"amqp": _amqp_defaults, "redis": _redis_defaults, "memory": _memory_defaults}
