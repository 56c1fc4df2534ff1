"""Commits flush after flush, for tests that kill it or take its disk away. Run as a program in a process of its own.

Each flush moves the same number of tasks through every place of the store that has to agree with the others, so that a
flush that was applied in part shows. ``disagreements`` looks.
"""

import sys
from typing import Final

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.core.model import Action, Changes, OutboxRequest, TaskRef
from tests.contracts.values import NOW, bucket, changes, error, failure, group, incident, series

TASKS: Final = 20
FINGERPRINT_WINDOW: Final = 100


def flush(sequence: int) -> Changes:
    """Flush number ``sequence``: one task sent and failed, a task tracked and the last one forgotten, and so on."""
    name = f"task{sequence % TASKS}"
    times = (sequence - 1) // TASKS + 1 if sequence % TASKS else sequence // TASKS
    return changes(
        sequence,
        series=[series(name, sent=times, failed=times)],
        buckets=[bucket(int(NOW) + sequence % 3 * 900, name, sent=1, failed=1)],
        groups=[group(f"g{sequence}")],
        errors=[error(f"g{sequence}")],
        failures=[failure(f"u{sequence}", name=name, group=f"g{sequence}", traceback="x" * 2000)],
        tracked=[(f"t{sequence}", TaskRef(name=name))],
        forgotten=[(f"t{sequence - 1}", sequence - 1)],
        incidents=[incident("k", count=sequence)],
        outbox=[OutboxRequest("pagerduty", "k", Action.TRIGGER, "", NOW)],
        counters={"messages": float(sequence)},
        epoch=1,
        fingerprints=sequence.to_bytes(8, "big"),
    )


def disagreements(store: SqlStore) -> list[str]:
    """What in a store that was just stopped is not as its flushes have left it; starts and stops it."""
    restored = store.start()
    done = restored.sequence
    reader = store.reader
    totals = {s.key.name: (s.counts[0], s.counts[4]) for s in restored.series}
    stored = {r.name: (r.counts[0], r.counts[4]) for r in reader.tasks(limit=99).rows}
    summed = {r.name: (r.counts[0], r.counts[4]) for r in reader.tasks(since=0.0, limit=99).rows}
    groups = reader.groups(0, NOW * 2)
    item = store.outbox.due(NOW, 1)
    found = {
        "totals": sum(sent for sent, _ in totals.values()) == done,
        "buckets": totals == summed == stored,
        "groups": sum(row.count for row in groups) == len(groups) == done,
        "samples": all(row.sample is not None for row in groups),
        "tracked": [uuid for uuid, _ in restored.tracked] == ([f"t{done}"] if done else []),
        "incident": [i.count for i in restored.incidents] == ([done] if done else []),
        "outbox": [i.revision for i in item] == ([done] if done else []),
        "counters": restored.counters == ({"messages": float(done)} if done else {}),
        "fingerprints": b"".join(blob for _, blob in restored.fingerprints)
        == b"".join(s.to_bytes(8, "big") for s in range(max(1, done - FINGERPRINT_WINDOW + 1), done + 1)),
    }
    store.stop()
    return [name for name, well in found.items() if not well]


def main() -> None:
    """Go on from where the store is, for ever; say which flush is committed."""
    store = open_store(sys.argv[1], retention=1e9, fingerprint_window=FINGERPRINT_WINDOW)
    sequence = store.start().sequence
    while True:
        sequence += 1
        store.commit(flush(sequence))
        sys.stdout.write(f"{sequence}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
