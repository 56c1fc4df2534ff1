"""Fleet controls that are closed after the test, and a client of the fleet."""

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from celery import Celery

from celery_monitor.adapters.broker import BrokerFleet, control, fleet
from celery_monitor.settings.broker import BrokerSettings


class Controlling(Protocol):
    """The type of the ``controlling`` fixture."""

    def __call__(self, url: str, *queues: str, **settings: Any) -> BrokerFleet:
        """A fleet control; ``queues`` are always reported."""


def settings(url: str, **fields: Any) -> BrokerSettings:
    """Validated like those of a file."""
    return BrokerSettings.model_validate({"url": url, **fields})


@pytest.fixture(autouse=True)
def patience() -> Iterator[pytest.MonkeyPatch]:
    """Long timeouts, as a broker may answer late on a slow machine. Tests of the timeouts undo them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(control, "_SEND_TIMEOUT", 30.0)
        patched.setattr(fleet, "_LENGTHS_TIMEOUT", 30.0)
        yield patched


@pytest.fixture
def controlling() -> Iterator[Controlling]:
    """Creates fleet controls and closes them after the test."""
    made: list[BrokerFleet] = []

    def make(url: str, *queues: str, **fields: Any) -> BrokerFleet:
        made.append(BrokerFleet(settings(url, **fields), queues))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def app(broker_url: str) -> Iterator[Celery]:
    """A client of the fleet."""
    with Celery(broker=broker_url) as client:
        client.conf.update(task_default_queue="fleet")
        yield client
