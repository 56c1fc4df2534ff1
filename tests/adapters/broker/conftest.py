"""Sources that are closed after the test."""

import time
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from celery_monitor.adapters.broker import BrokerProbe, BrokerSource
from celery_monitor.core.model import Delivery
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings
from tests.servers import wait_until


class Listening(Protocol):
    """The type of the ``listening`` fixture."""

    def __call__(self, url: str, **settings: Any) -> BrokerSource:
        """A connected source; ``settings`` are fields of BrokerSettings."""


class Probing(Protocol):
    """The type of the ``probing`` fixture."""

    def __call__(self, url: str, **settings: Any) -> BrokerProbe:
        """A probe."""


def settings(url: str, **fields: Any) -> BrokerSettings:
    """Validated like those of a file."""
    return BrokerSettings.model_validate({"url": url, **fields})


@pytest.fixture
def listening() -> Iterator[Listening]:
    """Creates connected sources."""
    sources: list[BrokerSource] = []

    def listen(url: str, **fields: Any) -> BrokerSource:
        source = BrokerSource(settings(url, **fields))
        sources.append(source)
        source.connect()
        return source

    yield listen
    for source in sources:
        source.abandon()


@pytest.fixture
def probing() -> Iterator[Probing]:
    """Creates probes."""
    probes: list[BrokerProbe] = []

    def probe(url: str, **fields: Any) -> BrokerProbe:
        probes.append(BrokerProbe(settings(url, **fields)))
        return probes[-1]

    yield probe
    for each in probes:
        each.close()


def collect(source: BrokerSource, count: int, *, ack: bool = True, timeout: float = 120) -> list[Delivery]:
    """Poll until ``count`` messages have arrived."""
    found: list[Delivery] = []

    def poll() -> bool:
        batch = source.poll(0.5)
        if batch is not None:
            found.extend(batch.deliveries)
            if ack:
                source.ack(batch.tag)
        return len(found) >= count

    wait_until(poll, timeout, every=0.001, what=f"{count} messages")
    return found


def poll_for(source: BrokerSource, seconds: float = 60) -> None:
    """Poll for this long, unless the stream is lost before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        source.poll(0.2)


def connects(source: BrokerSource) -> bool:
    """Whether it connects now: a broker that was just started or resumed may not be ready."""
    try:
        source.connect()
    except SourceLostError:
        return False
    return True
