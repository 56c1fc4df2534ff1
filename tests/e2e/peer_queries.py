"""What dashboards and alert rules written for celery-exporter ask Prometheus, in words of our own.

Nothing is copied from them; every metric, label, function and condition that they use is here. ``JOB`` is the job that
scrapes the daemon, ``RANGE`` the range of rates and increases.
"""

from collections.abc import Mapping
from typing import Final

JOB: Final = "celery"
RANGE: Final = "5m"

_FLEET: Final = f'job="{JOB}", namespace=~".*", cluster=~".*"'
_SELECTED: Final = f'{_FLEET}, queue_name!~"None"'
_NAMED: Final = f'{_SELECTED}, name!~"None"'
_OUTCOMES: Final = ("sent", "received", "started", "succeeded", "failed", "rejected", "retried", "revoked")


def _increase(outcome: str, selected: str = _SELECTED) -> str:
    return f"increase(celery_task_{outcome}_total{{{selected}}}[{RANGE}])"


def _quantile(quantile: float, *by: str) -> str:
    labels = ", ".join((*by, "job", "le"))
    moved = f"irate(celery_task_runtime_bucket{{{_SELECTED}}}[{RANGE}]) > 0"
    return f"histogram_quantile({quantile}, sum by ({labels}) ({moved}))"


def _mean_runtime(*by: str) -> str:
    total, number = (f"rate(celery_task_runtime_{part}{{{_SELECTED}}}[{RANGE}])" for part in ("sum", "count"))
    labels = ", ".join(by)
    return f"sum by ({labels}) ({total}) / sum by ({labels}) ({number}) > 0"


def _ratio(part: str, *by: str, selected: str = _SELECTED) -> str:
    """``part`` of what succeeded or failed."""
    labels = ", ".join(by)
    sums = {one: f"sum by ({labels}) ({_increase(one, selected)})" for one in ("succeeded", "failed")}
    return f"{sums[part]} / ({sums['failed']} + {sums['succeeded']})"


DASHBOARDS: Final[Mapping[str, str]] = {
    "workers up": f"count(celery_worker_up{{{_FLEET}}} == 1)",
    "tasks active": f"sum(celery_worker_tasks_active{{{_FLEET}}})",
    "workers by host": f"sum by (hostname) (celery_worker_up{{{_FLEET}}})",
    "queue lengths": f"sum by (job, queue_name) (celery_queue_length{{{_SELECTED}}})",
    "names to choose from": f"count by (name) (celery_task_sent_total{{{_NAMED}}})",
    "queues to choose from": f"count by (queue_name) (celery_task_received_total{{{_NAMED}}})",
    **{f"{outcome}, all": f"sum(round({_increase(outcome)})) > 0" for outcome in _OUTCOMES},
    **{f"{outcome} by name": f"sum by (name) (round({_increase(outcome)})) > 0" for outcome in _OUTCOMES},
    **{f"{outcome} by queue": f"sum by (queue_name) (rate(celery_task_{outcome}_total{{{_SELECTED}}}[{RANGE}])) > 0"
       for outcome in _OUTCOMES},
    "success ratio": f"{_ratio('succeeded', 'job')} > -1",
    "success ratio by name": f"{_ratio('succeeded', 'name')} > -1",
    "most failures": f"round(sum by (name) ({_increase('failed')} > 0))",
    "exceptions": f"round(sum by (exception) ({_increase('failed')}) > 0)",
    "exceptions by name": f"round(sum by (name, exception) ({_increase('failed')}) > 0)",
    "mean runtime": _mean_runtime("job"),
    "mean runtime by name": _mean_runtime("name"),
    **{f"quantile {quantile}": _quantile(quantile) for quantile in (0.5, 0.95, 0.99)},
    **{f"quantile {quantile} by name": _quantile(quantile, "name") for quantile in (0.5, 0.95, 0.99, 0.999)},
    "consumers": f"sum by (queue_name) (celery_active_consumer_count{{{_SELECTED}}})",
    "workers of a queue": f"sum by (queue_name) (celery_active_worker_count{{{_SELECTED}}})",
    "processes of a queue": f"sum by (queue_name) (celery_active_process_count{{{_SELECTED}}})",
}  # fmt: skip
"""Each has an answer on a fleet whose tasks end in every way."""

ALERTS: Final[Mapping[str, str]] = {
    "failures": f"{_ratio('failed', 'job', 'namespace', 'queue_name', 'name', selected=_NAMED)} * 100 > 5",
    "failures, as older rules count them": (
        f"sum by (job, namespace, name) ({_increase('failed', _NAMED)})"
        f" / sum by (job, namespace, name) ({_increase('succeeded', _NAMED)}) * 100 > 5"
    ),
    "queue length": f"sum by (job, namespace, queue_name) (celery_queue_length{{{_SELECTED}}}) > 100",
    "worker down": f"celery_worker_up{{{_FLEET}}} == 0",
}
"""Each is true of a fleet with failures, a long queue and a worker that has ended."""
