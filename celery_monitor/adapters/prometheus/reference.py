"""Generates the metrics reference, ``docs/metrics.md``, from the table of families.

python -m celery_monitor.adapters.prometheus.reference > docs/metrics.md
"""

import sys
from collections.abc import Sequence
from typing import Final

from celery_monitor.adapters.prometheus.families import FAMILIES, Family, Kind
from celery_monitor.adapters.prometheus.labels import MAX_LENGTH

_HEAD: Final = f"""\
# Metrics

<!-- Written by `make assemble` from celery_monitor/adapters/prometheus/families. -->

`/metrics` serves the Prometheus text format, or OpenMetrics 1.0.0 if `Accept` asks for it (as Prometheus does),
compressed by gzip on request. It answers from memory: a scrape waits neither for the broker nor for the store, and
works while either is down. After a start, the metrics of the fleet are absent, not 0, until the store has been read.

- **Drop-in.** Names and labels of the metrics of tasks, workers and queues are those of celery-exporter.
  [migration.md](migration.md) lists what differs on purpose.
- **Prefix.** `celery_` is `metrics.prefix`; `metrics.static_labels` are on every sample.
- **Restarts.** Counters of tasks, events and incidents are kept in the store and continue after a restart. Those of
  notifications, commits and the process start at 0.
- **First failures.** A failure with a new exception creates a new series of `celery_task_failed_total`, with the value
  1, which `increase()` cannot see. `celery_monitor_task_failures_total` exists with the value 0 as soon as a task is
  known: alert on it. So does `celery_task_succeeded_total`, so that a ratio of both is right from the first run.
- **Exemplars.** In OpenMetrics, `celery_monitor_task_failures_total` has the last failure's `task_id`;
  `/failures/TASK_ID` on the page shows its traceback.
- **Hosts.** `hostname` is the part after the `@` of `celery@box`. Workers on one host share their series. Task metrics
  have the label only with `metrics.hostname_label`.
- **Limits.** Names come from the fleet and are made printable. A value longer than {MAX_LENGTH} characters is cut and
  ends in `~` and 16 hex digits of its SHA-256, so that different names stay different. Above `metrics.max_task_names`
  and `metrics.max_series`, the least recently used series are merged into the name `other`: their totals are added to
  it, and their own series are removed. Sums over all names stay exact, but `increase()` of `other` counts merged
  totals again. Names that a worker has registered are merged last. `celery_monitor_limit_exceeded_total` shows which
  limit was exceeded. A worker's series are removed after `metrics.worker_purge`.
"""

_GROUPS: Final = (
    ("Tasks", ("task_", "monitor_task_failures")),
    ("Workers", ("worker",)),
    ("Queues", ("queue_", "active_")),
    ("Schedules", ("schedule_",)),
    ("The monitor itself", ("monitor_",)),
)

_TAIL: Final = """\
`process_*` are the same as those of every Prometheus client: memory, CPU time, open files and start time of the daemon.

## Queries

```promql
# failure ratio of each task
sum by (name) (rate(celery_monitor_task_failures_total[10m]))
  / (
    sum by (name) (rate(celery_monitor_task_failures_total[10m]))
    + sum by (name) (rate(celery_task_succeeded_total[10m]))
  )

# 95th percentile of the runtime of each task, in seconds
histogram_quantile(0.95, sum by (name, le) (rate(celery_task_runtime_bucket[10m])))

# is the monitor connected and up to date, and did it miss any tasks?
celery_monitor_broker_connected == 1 and celery_monitor_event_lag_seconds < 60
increase(celery_monitor_unobserved_tasks_total[1h])
```

`deploy/prometheus` contains recording and alert rules, `deploy/grafana` dashboards.
"""


def markdown() -> str:
    """The complete document."""
    remaining = list(FAMILIES)
    parts = [_HEAD]
    for title, starts in _GROUPS:
        families = [family for family in remaining if family.name.startswith(starts)]
        remaining = [family for family in remaining if family not in families]
        parts.append(f"## {title}\n\n{_table(families)}")
    return "\n".join([*parts, _TAIL])


def _table(families: Sequence[Family]) -> str:
    rows = [
        f"| `celery_{family.sample}` | {_type(family)} | {_labels(family)} | {family.help} |" for family in families
    ]
    return "\n".join(["| metric | type | labels | |", "| --- | --- | --- | --- |", *rows, ""])


def _type(family: Family) -> str:
    return "gauge, exported untyped" if family.kind is Kind.UNKNOWN else str(family.kind)


def _labels(family: Family) -> str:
    return ", ".join(f"`{label}`" for label in family.labels)


if __name__ == "__main__":
    sys.stdout.write(markdown())
