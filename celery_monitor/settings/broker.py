"""Settings of the broker."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from celery_monitor.settings.secret import (
    SecretFile,
    SecretSource,
    SecretUrl,
    check_ends,
    redact_keys,
    split_url,
)
from celery_monitor.settings.section import Section, Text, check_url_file, not_a_file
from celery_monitor.settings.units import DAY, MIB, duration, size

_SCHEMES: Final = ("amqp", "amqps", "pyamqp", "redis", "rediss", "redis+socket", "sentinel", "memory")
_EVENTLESS: Final = frozenset({
    "azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd", "filesystem", "gcpubsub",
    "kafka", "pyro", "sqla", "sqlalchemy", "sqs", "zookeeper",
})  # fmt: skip
_SECURE: Final = ("amqps", "rediss")
_NUMBERED: Final = ("redis", "rediss", "sentinel")
_FILES: Final = ("ca_certs", "certfile", "keyfile")
_DEFAULT_URL: Final = SecretUrl("amqp://guest:guest@localhost:5672//")


def check_urls(urls: str) -> None:
    """Raises ValueError, without any part of a URL, if the monitor cannot read events from one of them."""
    for url in urls.split(";"):
        check_ends(url)
        scheme = url.partition("://")[0].lower() if "://" in url else ""
        if scheme.partition("+")[0] in _EVENTLESS:
            raise ValueError(
                "this transport carries no task events (Celery supports them on RabbitMQ and Redis only); use the "
                "URL of such a broker"
            )
        if scheme not in _SCHEMES and not (url != urls and not scheme):  # sentinel://a:26379;b:26379
            raise ValueError(
                f"must begin with one of {', '.join(_SCHEMES)}, as in amqp://user:password@host:5672/vhost"
            )
        path = split_url(url if scheme else f"//{url}").path
        if (scheme or "sentinel") in _NUMBERED and not re.fullmatch("/*[0-9]*", path):
            raise ValueError(
                "must end with a database number, as in redis://host:6379/0 (if the slash is part of the password, "
                "write it as %2F)"
            )


def tls_options(url: str, use_ssl: dict[str, Any] | bool | None) -> dict[str, Any] | None:  # noqa: FBT001 - Celery's own
    """The TLS options for one broker, from ``broker.use_ssl`` and the URL's query; None without TLS.

    Either the URL's scheme or ``use_ssl`` enables TLS, so that nothing is sent in clear text by mistake.
    """
    parts = split_url(url)
    if not (parts.scheme.lower() in _SECURE or use_ssl is True or isinstance(use_ssl, dict)):
        return None
    options = dict(use_ssl) if isinstance(use_ssl, dict) else {}
    options |= {key: value for key, value in parse_qsl(parts.query) if key.startswith("ssl_")}
    if isinstance(checked := options.get("ssl_check_hostname"), str):
        options["ssl_check_hostname"] = checked.lower() not in {"false", "0", "no"}
    return {key: value for key, value in options.items() if value is not None or not key.endswith("cert_reqs")}


def unverified(urls: str, use_ssl: dict[str, Any] | bool | None) -> bool:  # noqa: FBT001 - Celery's own
    """Whether TLS is enabled but the broker's certificate or host name is not verified."""
    for url in urls.split(";"):
        options = tls_options(url, use_ssl) or {}
        for key, value in options.items():
            name = str(value).lower().rpartition("cert_")[2].rpartition(".")[2]
            if key.endswith("cert_reqs") and name in {"none", "optional", "0", "1"}:
                return True
            if key.endswith("check_hostname") and value is False:
                return True
    return False


def _broker_url(value: SecretUrl) -> SecretUrl:
    check_urls(value.get_secret_value())
    return value


def _queue_name(value: str) -> str:
    if value.startswith("amq."):
        raise ValueError("must not begin with amq., which RabbitMQ reserves")
    return value


def _ssl(value: object) -> object:
    if isinstance(value, dict):
        for key, path in value.items():
            if str(key).endswith(_FILES) and (kind := not_a_file(str(path))):
                raise ValueError(f"{key} must be the path of a file; {path} is {kind}")
    if value is None or isinstance(value, bool | dict):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise ValueError("must be true, false or a mapping of options, like Celery's broker_use_ssl")


_TrueOrFalse = Annotated[str, Field(pattern=r"^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$")]
"""As in an environment variable."""
Options = Annotated[dict[str, Any], PlainSerializer(redact_keys, when_used="json")]


class QueueSettings(Section):
    """The monitor's own queue on the broker (AMQP only). It keeps events while the monitor is down."""

    name: Annotated[Text, AfterValidator(_queue_name)] = "celery-monitor"
    """The name of the queue. Each monitor on a broker needs its own queue name."""
    type: Literal["classic", "quorum"] = "classic"
    """``quorum`` keeps events even if the broker is killed; it requires RabbitMQ 3.8 or later. To change the type
    of an existing queue, delete the queue or use another name.
    """
    durable: bool = True
    """Whether the queue survives a restart of the broker. A quorum queue always does."""
    expires: Annotated[float, duration("1s", "49d")] = DAY
    """The broker deletes the queue after this time without a consumer, so that a removed monitor leaves nothing
    behind. A shorter downtime loses no events.
    """
    max_bytes: Annotated[int, size("1KiB")] = 256 * MIB
    """The broker drops the oldest events beyond this size, so that a monitor that is down cannot fill the broker's
    disk.
    """

    @field_validator("durable")
    @classmethod
    def _quorum_is_durable(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
        if not value and info.data.get("type") == "quorum":
            raise ValueError("must be true with type quorum")
        return value


class ReplaySettings(Section):
    """With Redis and two replicas: the events that the standby keeps in memory until the leader has committed them.

    When it takes over, it counts the events that were not committed. Those that did not fit are lost and reported as a
    gap.
    """

    max_bytes: Annotated[int, size("1MiB")] = 64 * MIB
    """The memory for these events. Usually these are the events of the last second or two; more while the leader
    cannot write to the store.
    """
    max_age: Annotated[float, duration("10s", "1h")] = 600.0
    """The maximum time that events are kept."""


class BrokerSettings(Section):
    """The fleet's broker, and how the monitor reads from it."""

    url: Annotated[SecretUrl, AfterValidator(_broker_url)] = Field(
        default=_DEFAULT_URL,
        # RabbitMQ's default password is no secret, and a schema with ** would be wrong.
        json_schema_extra={
            "default": _DEFAULT_URL.get_secret_value(),
            "examples": ["redis://redis:6379/0", "sentinel://:password@sentinel-1:26379;sentinel-2:26379"],
        },
    )
    """The broker's URL, as in Celery's ``broker_url``: RabbitMQ, Redis or Sentinel (and memory, for tests).
    Separate several URLs of one cluster with ``;``.
    """
    url_file: SecretFile | None = None
    """A file that contains the URL, instead of ``url``. It is reloaded when it changes."""
    transport_options: Options = Field(default={}, repr=False)
    """The same as Celery's ``broker_transport_options``, for example ``master_name`` of a Sentinel or
    ``global_keyprefix``.
    """
    use_ssl: Annotated[
        bool | dict[str, Any] | None,
        BeforeValidator(_ssl, json_schema_input_type=bool | dict[str, Any] | _TrueOrFalse | None),
        PlainSerializer(redact_keys, when_used="json"),
    ] = Field(default=None, repr=False)
    """The same as Celery's ``broker_use_ssl``: true, or a mapping such as ``{ca_certs: /etc/ssl/ca.pem}`` (for Redis
    ``ssl_ca_certs``). With it, or with amqps:// or rediss://, the broker's certificate and host name are verified.
    ``cert_reqs: none`` (``ssl_cert_reqs: none``) disables verification, so that anyone on the network path can read
    the password. Set ``server_hostname`` (amqps) if the certificate is for another name than the host in the URL.
    """
    exchange: Text = "celeryev"
    """The same as Celery's ``event_exchange``: the exchange to which workers publish events."""
    control_exchange: Text = "celery"
    """The same as Celery's ``control_exchange``: workers receive remote control requests on ``NAME.pidbox``."""
    heartbeat: Annotated[float, duration("1s", "10m")] = 10.0
    """The AMQP heartbeat interval. The connection is considered lost after twice this time without data from the
    broker.
    """
    prefetch: int = Field(default=4000, ge=100, le=65535)
    """The maximum number of unacknowledged messages. A higher value is faster and uses more memory. A commit
    starts when half of it is reached.
    """
    max_message_bytes: Annotated[int, size("64KiB", "256MiB")] = 8 * MIB
    """The maximum size of a message. Larger messages are acknowledged and counted as discarded (``too_large``).
    Celery's event messages are usually a few kilobytes; with many long tracebacks, a few hundred.
    """
    probe_interval: Annotated[float, duration("100ms", "5m")] = 5.0
    """How often a small probe event is sent through the broker and back. It measures the round trip and detects
    dead connections.
    """
    enable_events: bool = True
    """Enable task events on the workers: at start, when a worker comes online, and every minute. If disabled, only
    workers started with ``-E`` are monitored.
    """
    queue: QueueSettings = QueueSettings()
    replay: ReplaySettings = ReplaySettings()

    @field_validator("url_file")
    @classmethod
    def _one_good_url(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_url_file(value, info, _DEFAULT_URL, check_urls)

    def url_source(self) -> SecretSource:
        """The source of the URL, which is never None."""
        return SecretSource(self.url, self.url_file)

    def each_address(self) -> Iterator["BrokerSettings"]:
        """The settings once for each URL in ``url``, for a command that tries each URL only once.

        The Sentinels of one master stay together.
        """
        urls = self.url_source().get() or ""
        for url in [urls] if urls.lower().startswith("sentinel") else [part for part in urls.split(";") if part]:
            yield self.model_copy(update={"url": SecretUrl(url), "url_file": None})
