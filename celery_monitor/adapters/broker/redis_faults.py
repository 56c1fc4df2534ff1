"""Explains errors of Redis and Sentinel, with advice."""

from typing import Final

import redis.exceptions
import redis.sentinel

_RULES: Final = "~* &* +@connection +@pubsub +@read +@list +@transaction +@scripting +del +pexpire"
_CLUSTER: Final = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ClusterCrossSlotError,
)
_UNKNOWN_COMMAND: Final = "unknown command"
_TOO_MANY_CLIENTS: Final = "max number of clients"
_MASTER_NAME: Final = "set broker.transport_options.master_name to the master's name in Sentinel"


def describe(exc: BaseException) -> str | None:
    """What happened, if the text of the exception does not say it or contains too much. None for other exceptions."""
    if isinstance(exc, redis.sentinel.MasterNotFoundError):
        return _sentinels(exc)[0]
    if isinstance(exc, redis.exceptions.MovedError | redis.exceptions.AskError):
        return "the key is on another node of the cluster"  # the text is only an address
    if _is_unknown_command(exc):
        return str(exc).partition(", with args")[0]  # the rest contains the body of a message
    return None


def remedy(exc: BaseException) -> str | None:
    """Advice for an error that does not disappear by itself; None for other exceptions."""
    if isinstance(exc, redis.sentinel.MasterNotFoundError):
        return _sentinels(exc)[1]
    return _of_response(exc) if isinstance(exc, redis.exceptions.ResponseError) else None


def _of_response(exc: redis.exceptions.ResponseError) -> str | None:
    text = str(exc)
    # Missing permissions within a script raise no NoPermissionError.
    if isinstance(exc, redis.exceptions.NoPermissionError) or "user executing the script" in text:
        if "'sentinel" in text:
            return "grant the user of sentinel_kwargs access on each sentinel: ACL SETUSER NAME +@connection +sentinel"
        return f"grant the user access: ACL SETUSER NAME {_RULES}"
    if _is_unknown_command(exc):
        return (
            "enable this command (rename-command, or the provider's settings), and connect to Redis itself, not to a "
            "proxy that lacks it"
        )
    if isinstance(exc, _CLUSTER) or "cluster mode" in text:
        return "Celery does not support Redis Cluster as a broker: use a Redis with cluster mode disabled"
    return None


def hint(exc: BaseException) -> str | None:
    """Advice for an error that may disappear by itself; None for other exceptions."""
    if isinstance(exc, redis.exceptions.BusyLoadingError):
        return "wait until Redis has loaded its data"
    if isinstance(exc, redis.exceptions.RedisError) and _TOO_MANY_CLIENTS in str(exc):
        return "raise maxclients of Redis, or find out who holds its connections (CLIENT LIST)"
    return None


def _is_unknown_command(exc: BaseException) -> bool:
    return isinstance(exc, redis.exceptions.ResponseError) and _UNKNOWN_COMMAND in str(exc)


def _sentinels(exc: redis.sentinel.MasterNotFoundError) -> tuple[str, str]:
    """What happened, and advice. The text of the exception lists each sentinel that was tried, with its error class."""
    text = str(exc)
    if redis.exceptions.AuthenticationError.__name__ in text:
        return (
            "a sentinel refuses the password, or requires one",
            "set password in broker.transport_options.sentinel_kwargs (the password in broker.url is the master's)",
        )
    if redis.exceptions.ConnectionError.__name__ in text or redis.exceptions.TimeoutError.__name__ in text:
        return "no responding sentinel knows the master", (
            "check that the sentinels in broker.url are running; if they use TLS, set ssl: true and ssl_ca_certs "
            f"in broker.transport_options.sentinel_kwargs (broker.use_ssl is for the master); {_MASTER_NAME}"
        )
    return (
        "no sentinel knows the master, or it is down",
        f"{_MASTER_NAME}, and list the sentinels of this master in broker.url",
    )
