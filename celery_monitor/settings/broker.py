"""Where the events come from."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from celery_monitor.settings.secret import (
    SecretFile,
    SecretSource,
    SecretUrl,
    read_secret,
    redact_keys,
    split_url,
)
from celery_monitor.settings.section import Section, Text, not_a_file
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
    """Raises ValueError, without any part of them in it, for those that the monitor cannot listen to."""
    for url in urls.split(";"):
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
    """The options for TLS to one broker, from ``broker.use_ssl`` and the URL's query; None where none is asked for.

    The URL's scheme asks for it, and so does ``use_ssl``: nothing that was asked for is sent in clear text.
    """
    parts = split_url(url)
    if not (parts.scheme.lower() in _SECURE or use_ssl is True or isinstance(use_ssl, dict)):
        return None
    given = dict(use_ssl) if isinstance(use_ssl, dict) else {}
    given |= {key: value for key, value in parse_qsl(parts.query) if key.startswith("ssl_")}
    if isinstance(checked := given.get("ssl_check_hostname"), str):
        given["ssl_check_hostname"] = checked.lower() not in {"false", "0", "no"}
    return {key: value for key, value in given.items() if value is not None or not key.endswith("cert_reqs")}


def unverified(urls: str, use_ssl: dict[str, Any] | bool | None) -> bool:  # noqa: FBT001 - Celery's own
    """Whether TLS is asked for and anybody may pretend to be the broker: verification is turned off."""
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
    raise ValueError("must be true, false or a mapping of options, as Celery's broker_use_ssl")


Options = Annotated[dict[str, Any], PlainSerializer(redact_keys, when_used="json")]


class QueueSettings(Section):
    """The monitor's own queue on the broker (AMQP only): what is in it survives the monitor's absence."""

    name: Annotated[Text, AfterValidator(_queue_name)] = "celery-monitor"
    """The name of the queue. Two monitors of one broker need two names, else each sees half of the events."""
    type: Literal["classic", "quorum"] = "classic"
    """``quorum`` keeps every event also when the broker is killed; it needs RabbitMQ 3.8 or later. A queue
    cannot change its type: delete it first, or take another name."""
    durable: bool = True
    """Whether the queue survives a restart of the broker. A quorum queue always does."""
    expires: Annotated[float, duration("1s", "49d")] = DAY
    """The broker deletes the queue after so long without the monitor, so that a monitor that was taken
    away leaves nothing behind. An absence shorter than this loses no event."""
    max_bytes: Annotated[int, size("1KiB")] = 256 * MIB
    """The broker drops the oldest events beyond this size, so that an absent monitor cannot fill the
    broker's disk."""

    @field_validator("durable")
    @classmethod
    def _quorum_is_durable(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
        if not value and info.data.get("type") == "quorum":
            raise ValueError("must be true with type quorum")
        return value


class BrokerSettings(Section):
    """The fleet's broker, and how the monitor listens to it."""

    url: Annotated[SecretUrl, AfterValidator(_broker_url)] = Field(
        default=_DEFAULT_URL,
        # RabbitMQ's well-known one is no secret, and a schema that says ** would be wrong.
        json_schema_extra={
            "default": _DEFAULT_URL.get_secret_value(),
            "examples": ["redis://redis:6379/0", "sentinel://:password@sentinel-1:26379;sentinel-2:26379"],
        },
    )
    """The fleet's broker, as Celery's ``broker_url``: any transport with task events (RabbitMQ, Redis,
    Sentinel; in tests memory). Several URLs of one cluster are joined by ``;``."""
    url_file: SecretFile | None = None
    """A file that holds the URL, instead of ``url``; it is read again when it changes."""
    transport_options: Options = Field(default={}, repr=False)
    """As Celery's ``broker_transport_options``, for example ``master_name`` of a Sentinel or
    ``global_keyprefix``."""
    use_ssl: Annotated[
        bool | dict[str, Any] | None, BeforeValidator(_ssl), PlainSerializer(redact_keys, when_used="json")
    ] = Field(default=None, repr=False)
    """As Celery's ``broker_use_ssl``: true, or a mapping such as ``{ca_certs: /etc/ssl/ca.pem}`` (for Redis
    ``ssl_ca_certs``). With it, or with amqps:// or rediss://, the broker's certificate and its name are verified.
    ``cert_reqs: none`` (``ssl_cert_reqs: none``) turns that off: then whoever is on the way can read the password;
    ``server_hostname`` (amqps) names what the certificate is for where that is not the host in the URL."""
    exchange: Text = "celeryev"
    """As Celery's ``event_exchange``: where the workers publish."""
    control_exchange: Text = "celery"
    """As Celery's ``control_exchange``: where the workers take questions from, on ``NAME.pidbox``."""
    heartbeat: Annotated[float, duration("1s", "10m")] = 10.0
    """The interval of AMQP heartbeats. Twice this without a sign from the broker is a lost connection."""
    prefetch: int = Field(default=4000, ge=100, le=65535)
    """How many messages may be unacknowledged. More is faster and costs memory; half of it forces a
    commit."""
    max_message_bytes: Annotated[int, size("64KiB", "256MiB")] = 8 * MIB
    """The longest message that is read. A longer one is acknowledged and counted as discarded
    (``too_large``). Celery's messages have a few kilobytes; ones with many long tracebacks, some hundred."""
    probe_interval: Annotated[float, duration("100ms", "5m")] = 5.0
    """How often a tiny event goes around through the broker. It measures the lag, and finds a connection
    that is dead without an error."""
    enable_events: bool = True
    """Ask workers to send task events: at start, when one comes online, and every minute. Without it only
    workers that were started with ``-E`` are seen."""
    queue: QueueSettings = QueueSettings()

    @field_validator("url_file")
    @classmethod
    def _one_good_url(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None:
            if info.data.get("url") is not _DEFAULT_URL:
                raise ValueError("set either url or url_file, not both")
            check_urls(read_secret(value))
        return value

    def url_source(self) -> SecretSource:
        """The URL, from wherever it comes; never None."""
        return SecretSource(self.url, self.url_file)
