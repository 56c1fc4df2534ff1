"""Real servers for the tests: private, on free loopback ports, in temporary directories.

Each is a context manager and has ``stop``, ``kill`` (SIGKILL), ``pause`` (SIGSTOP: a half-open connection),
``resume`` and ``restart`` (same ports and data). What a server wrote is in its ``log``; a server that does
not come up raises with the end of it. Everything started here is ended by its own process id.
"""

from tests.servers.celery_worker import CeleryWorker
from tests.servers.postgresql import PgBouncer, PostgreSQL
from tests.servers.prometheus import Prometheus
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis import Redis, Sentinel
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.waiting import Stopwatch, wait_until

__all__ = [
    "CeleryWorker",
    "PgBouncer",
    "PostgreSQL",
    "Prometheus",
    "RabbitMQ",
    "Redis",
    "Sentinel",
    "Stopwatch",
    "TcpProxy",
    "wait_until",
]
