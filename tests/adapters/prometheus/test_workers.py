"""The families of the workers."""

import pytest

from celery_monitor.adapters.prometheus.workers import WorkerRenderer
from tests.adapters.prometheus import parsing
from tests.adapters.prometheus.snapshots import worker

HOSTS = ['a"b\\c', "x" * 300, "new\nline", "plain", "übel", "\ud800"]


@pytest.mark.parametrize("openmetrics", [False, True])
def test_every_worker_has_its_lines(*, openmetrics: bool) -> None:
    """Any workers with any names are rendered as valid text with each worker's values."""
    known = [worker(f"celery@{name}{n}", active=n, sw_ver=name) for n, name in enumerate(HOSTS * 200)]
    text = b"".join(WorkerRenderer("celery_", {"fleet": 'a"b'}).render(known, openmetrics=openmetrics)).decode()
    found = list(parsing.openmetrics(text + "# EOF\n") if openmetrics else parsing.plain(text))
    assert all(len(family.samples) == len(known) for family in found)
    (active,) = [family for family in found if family.name == "celery_worker_tasks_active"]
    assert [one.value for one in active.samples] == list(range(len(known)))
    assert all(one.labels["fleet"] == 'a"b' for family in found for one in family.samples)


def test_no_worker() -> None:
    """Without workers the families have no samples."""
    text = b"".join(WorkerRenderer("celery_", {}).render([], openmetrics=False)).decode()
    assert all(line.startswith("#") for line in text.splitlines())
