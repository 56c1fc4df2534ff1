"""``celery-monitor store copy``, between real stores with rows in every table."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner, Result
from msgspec import structs
from sqlalchemy import func, select

from celery_monitor.adapters.store import SqlStore, copy, open_store
from celery_monitor.adapters.store.schema import metadata
from celery_monitor.adapters.store.tracked_journal import YOUNG_FLUSHES
from celery_monitor.cli import main
from celery_monitor.core.model import Action, Event, OutboxRequest, Silence, TaskRef, TaskRun, UnnamedEvent
from celery_monitor.core.model.schedules import ScheduleState, TaskStarts
from celery_monitor.settings import Settings
from tests.adapters.store.test_hostile import everywhere
from tests.contracts.values import NOW, changes, failure
from tests.servers import PostgreSQL, wait_until
from tests.servers.ports import free_port

FLEET = "shop"
ODD = "x\0é\U0001f600 %s 'quoted' \\"
ROWS = 2_500
"""More than two portions."""


@contextmanager
def opened(url: str, directory: Path, *, lead: bool = True) -> Iterator[SqlStore]:
    """As the fleet's daemon opens it."""
    schema = Settings(fleet=FLEET).schema_of_store
    store = open_store(url, schema=schema, directory=directory, retention=1e9, fingerprint_window=4000)
    if lead:
        store.start("pod-1")
    yield store
    store.stop()


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A store that a daemon has filled and closed."""
    url = f"sqlite:///{tmp_path}/old.db"
    with opened(url, tmp_path) as store:
        store.commit(structs_of(everywhere(ODD)))
        store.commit(
            changes(
                2,
                failures=[failure(f"u{number}", group=f"g{number}") for number in range(ROWS)],
                tracked=[(f"t{number}", TaskRef(name="t", seen_minute=number)) for number in range(ROWS)],
                ended=[TaskRun(uuid="t\0", name="t", queue=None, hostname="w", stage=5, ended_at=NOW, parent="p")],
                outbox=[OutboxRequest("pagerduty", "other", Action.TRIGGER, due_at=NOW)],
                schedules=[ScheduleState("s", "every 5m", "t", NOW, NOW)],
                starts=[TaskStarts("t", (NOW, NOW + 300))],
                position="tag-7",
            )
        )
        for sequence in range(3, 2 + YOUNG_FLUSHES):  # the tasks of the first flush are in their table then
            store.commit(changes(sequence))
        store.outbox.dead(store.outbox.due(NOW, 9)[0], NOW, "never")
        silence = Silence(id="s1", match=("a*",), starts_at=NOW, ends_at=NOW + 9, reason="deploy", created_by="ada")
        store.silences.add(silence)
    return url


def structs_of(flush: Any) -> Any:
    """With the structs that ``everywhere`` omits."""
    event = UnnamedEvent(7, 1.5, Event(type="task-failed", timestamp=2.5, hostname="celery@a", uuid="u4"), 3.5)
    last = structs.replace(flush.series[0].runtime, sum=float("inf"))
    return changes(
        1,
        **{name: getattr(flush, name) for name in ("buckets", "groups", "errors", "failures", "tracked", "workers")},
        **{name: getattr(flush, name) for name in ("incidents", "outbox", "counters", "checkpoints", "queue_lengths")},
        series=[structs.replace(flush.series[0], runtime=last)],
        unnamed=[event],
        epoch=3,
        fingerprints=b"12345678",
    )


def run(tmp_path: Path, source: str, target: str) -> Result:
    """Run the command, with the fleet's name in the environment."""
    environment = {"CELERY_MONITOR_FLEET": FLEET, "CELERY_MONITOR_STORE__DIRECTORY": str(tmp_path)}
    return CliRunner().invoke(main, ["store", "copy", "--from", source, "--to", target], env=environment)


def rows(url: str, directory: Path) -> dict[str, int]:
    """The number of rows of each table."""
    with opened(url, directory, lead=False) as store, store._database.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in metadata.tables.items()
        }


def content(url: str, directory: Path) -> Any:
    """The state from which a daemon continues."""
    with opened(url, directory) as store:
        with store._database.read() as connection:
            every = {
                name: sorted(map(repr, connection.execute(select(table)).all()))
                for name, table in metadata.tables.items()
                if name != "meta"
            }
        return every, store.position(), store.silences.current(NOW)


def test_there_and_back(source: str, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """From SQLite to PostgreSQL and back: every row of every table is equal, and the totals are printed."""
    before = rows(source, tmp_path)
    assert min(before.values()) > 0, before
    server, back = postgresql.new_database(), f"sqlite:///{tmp_path}/back.db"
    there = run(tmp_path, source, server)
    assert there.exit_code == 0, there.output
    assert f"failures: {before['failures']:,} of {before['failures']:,} rows" in there.output
    assert "failures: 1,000 of" in there.output or "failures: 2," in there.output
    assert "schema celery_monitor_shop" in there.output
    assert "same" in next(line for line in there.stdout.splitlines() if line.startswith("total failed"))
    assert rows(server, tmp_path) == before
    assert run(tmp_path, server, back).exit_code == 0
    assert content(back, tmp_path) == content(server, tmp_path)
    again = run(tmp_path, back, postgresql.new_database())
    assert again.exit_code == 0, again.output
    # The text with NUL is what PostgreSQL can hold of it; all else is as it was.
    old, new = content(source, tmp_path)[0], content(back, tmp_path)[0]
    assert old.pop("tracked_changes") == new.pop("tracked_changes")  # no text: the zeros in it are none
    assert {name for name in old if [one.replace("\\x00", "\\\\x00") for one in old[name]] != new[name]} == set()


def test_it_goes_on(source: str, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """A daemon on the copy commits the next flush, and new rows get new IDs."""
    server = postgresql.new_database()
    assert run(tmp_path, source, server).exit_code == 0
    with opened(server, tmp_path) as store:
        restored_position = store.position()
        store.commit(
            changes(2 + YOUNG_FLUSHES, failures=[failure("new")], outbox=[OutboxRequest("p", "k", Action.TRIGGER)])
        )
        assert restored_position == "tag-7"
        assert len(store.reader.failure("new")) == 1
        assert max(item.id for item in store.outbox.items(dead=False, limit=9).rows) == 3
        assert store.lease().holder == "pod-1"


def test_an_odd_id_in_the_journal(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """An ID with a NUL becomes a row of PostgreSQL, and forgotten entries do not come back."""
    url, server, last = f"sqlite:///{tmp_path}/old.db", postgresql.new_database(), 2 + YOUNG_FLUSHES
    with opened(url, tmp_path) as store:
        store.commit(changes(1, tracked=[(uuid, TaskRef(name="old")) for uuid in ("row\0", "both\0", "gone\0")]))
        for sequence in range(2, last):
            store.commit(changes(sequence))
        new = [(uuid, TaskRef(name="new")) for uuid in ("end\0", "stays\0")]
        new.append(("both\0", TaskRef(name="new", saved=1)))
        store.commit(changes(last, tracked=new, forgotten=[("gone\0", 1)]))
    assert run(tmp_path, url, server).exit_code == 0
    stored = {"row\0": "old", "both\0": "new", "stays\0": "new"}  # as events have them
    with opened(server, tmp_path) as store:
        store.commit(changes(last + 1, forgotten=[(r"end\x00", last)]))
        store.stop()
        assert {uuid: ref.name for uuid, ref in store.start("pod-1").tracked} == stored
        for sequence in range(last + 2, last + 2 + YOUNG_FLUSHES):
            store.commit(changes(sequence))
        store.stop()
        assert {uuid: ref.name for uuid, ref in store.start("pod-1").tracked} == stored


def test_refusals(source: str, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """A store in use on either side, a target with rows, a missing source: each with a remedy."""
    server, empty = postgresql.new_database(), postgresql.new_database()
    with opened(source, tmp_path):
        refused = run(tmp_path, source, empty).output
        assert re.search(r"old\.db is in use by another celery-monitor \(process \d+ on .+\): stop that one", refused)
        assert refused.endswith("stop that one, and try again\n")  # a different store is not what is to be copied
        assert "store.url" not in refused
    with opened(server, tmp_path):
        found = run(tmp_path, source, server).output
        assert "is in use by pod-1. Stop every replica" in found
        assert "is in use by pod-1" in run(tmp_path, server, f"sqlite:///{tmp_path}/new.db").output
    assert run(tmp_path, source, server).exit_code == 0
    for target in (server, source):
        again = run(tmp_path, source, target)
        assert again.exit_code == 1
        assert "is not empty" in again.output
    assert "No store found" in run(tmp_path, f"sqlite:///{tmp_path}/none.db", empty).output
    wrong = run(tmp_path, source, "mysql://a/b")
    assert (wrong.exit_code, "--to: must be a SQLite file" in wrong.output) == (2, True)


def test_remedies_name_the_option(source: str, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """A store that cannot be used is the one of an option, not that of the configuration."""
    strange, target, nowhere = tmp_path / "strange.db", f"sqlite:///{tmp_path}/new.db", f"sqlite:///{tmp_path}/no/x.db"
    with closing(sqlite3.connect(strange)) as connection:
        connection.execute("CREATE TABLE other (id)")
    server = postgresql.new_database()
    silent = re.sub(r":\d+/", f":{free_port()}/", server)
    unknown = f"{server.rpartition('/')[0]}/unknown"
    for found, remedy in (
        (run(tmp_path, nowhere, target), "; check --from"),
        (
            run(tmp_path, f"sqlite:///{strange}", target),
            "the tables of another program (other): set a different --from",
        ),
        (run(tmp_path, source, f"sqlite:///{strange}"), "the tables of another program (other): set a different --to"),
        (run(tmp_path, source, nowhere), "create it, or set a different --to"),
        (run(tmp_path, silent, target), "check host and port in --from, and the server"),
        (run(tmp_path, source, unknown), "or correct the name in --to"),
    ):
        assert remedy in found.output
        assert "store.url" not in found.output
        assert found.exit_code == 1


def test_all_or_nothing(source: str, postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that differs in the target, or an interruption, leaves an empty, usable target."""
    server = postgresql.new_database()
    hashed = copy._hash
    with monkeypatch.context() as patch:
        seen = iter(range(10**9))
        patch.setattr(copy, "_hash", lambda row: hashed(row) + next(seen))
        differs = run(tmp_path, source, server)
    assert differs.exit_code == 1
    assert "The copy differs from its source in" in differs.output
    with monkeypatch.context() as patch:
        patch.setattr(copy, "_totals", lambda *_: 1 / 0)
        assert run(tmp_path, source, server).exit_code == 1
    assert {name for name, number in rows(server, tmp_path).items() if number} == {"meta"}
    assert run(tmp_path, source, server).exit_code == 0


def test_longer_than_a_lease(
    source: str, postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source's transaction does not wait for the comparison, which a server would end; its lease is renewed.

    Where a daemon has taken the source meanwhile, nothing is copied.
    """
    server, seen = postgresql.new_database(), list[str]()
    assert run(tmp_path, source, server).exit_code == 0
    monkeypatch.setattr(copy, "LEASE_TTL", 0.2)
    checksum = copy.StoreCopy._checksum
    starts: list[SqlStore] = []

    def slowly(self: copy.StoreCopy, writing: Any, table: Any) -> tuple[int, int]:
        if not seen:
            seen.append(repr(postgresql.query(_TRANSACTIONS.format(server.rpartition("/")[2]))))
            wait_until(lambda: self._source._lease.state().expires_in < 0, 10, what="the end of the lease")
            if starts:
                starts[0].start("pod-2")
        return checksum(self, writing, table)

    monkeypatch.setattr(copy.StoreCopy, "_checksum", slowly)
    done = run(tmp_path, server, f"sqlite:///{tmp_path}/new.db")
    assert (done.exit_code, seen) == (0, ["[]"]), done.output
    seen.clear()
    with opened(server, tmp_path, lead=False) as store:
        starts.append(store)
        refused = run(tmp_path, server, f"sqlite:///{tmp_path}/other.db")
        assert refused.exit_code == 1
        assert "was taken over by pod-2 during the copy, so nothing was written" in refused.output
    assert {name for name, number in rows(f"sqlite:///{tmp_path}/other.db", tmp_path).items() if number} == {"meta"}


_TRANSACTIONS = "SELECT state, query FROM pg_stat_activity WHERE datname = '{}' AND xact_start IS NOT NULL"


def test_the_pod_of_the_documentation(source: str, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """It is valid, also in a namespace that enforces `restricted`, and its command copies the store."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "high-availability.md").read_text()
    (manifest,) = re.findall(r"apply -f - <<'END'\n(.*?)\nEND\n", text, re.DOTALL)
    pod = yaml.safe_load(manifest)
    kubernetes_validate.validate(pod, "1.30", strict=True)
    (container,) = pod["spec"]["containers"]
    assert (
        pod["spec"]["securityContext"].items()
        >= {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}.items()
    )
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    (mount,) = container["volumeMounts"]
    (command,) = container["args"]
    file = Path(source.removeprefix("sqlite:///"))
    file.rename(tmp_path / "celery-monitor.db")
    here = command.replace(mount["mountPath"], str(tmp_path)).replace("/tmp/fleet.yaml", f"{tmp_path}/fleet.yaml")
    target = postgresql.new_database()
    environment = {"TARGET": target, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([*container["command"], here], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "schema celery_monitor_shop" in done.stdout
    assert sum(rows(target, tmp_path).values()) > ROWS


@pytest.mark.parametrize("command", ["outbox list", "silence list", "report --date yesterday", "schedules suggest"])
def test_commands_find_the_schema_of_the_fleet(command: str, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """What works beside the daemon uses the tables of its fleet, wherever the search path leads."""
    url = postgresql.new_database()
    with opened(url, tmp_path):
        pass
    environment = {"CELERY_MONITOR_FLEET": FLEET, "CELERY_MONITOR_STORE__DIRECTORY": str(tmp_path)}
    done = CliRunner().invoke(main, [*command.split(), "--store", url], env=environment)
    assert done.exit_code == 0, done.output
