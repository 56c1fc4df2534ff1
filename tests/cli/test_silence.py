"""``celery-monitor silence`` on a real store that a daemon has open."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.cli import main
from tests.fakes import ManualClock

AT = 1_795_442_531.0
"""2026-11-23T14:02:11Z."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """The daemon's store, open."""
    daemon = open_store(f"sqlite:///{tmp_path}/monitor.db", retention=86_400.0, fingerprint_window=10)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run at that time, as a user with this name."""
    monkeypatch.setattr("celery_monitor.cli.silence.SystemClock", lambda: ManualClock(AT))
    monkeypatch.setattr("celery_monitor.cli.silence.getpass.getuser", lambda: "ada")


def invoke(tmp_path: Path, *arguments: str) -> Result:
    """Run the command on the daemon's store."""
    return CliRunner().invoke(
        main, ["silence", *arguments], env={"CELERY_MONITOR_STORE__URL": f"sqlite:///{tmp_path}/monitor.db"}
    )


def test_add_list_and_end(store: SqlStore, tmp_path: Path) -> None:
    """An added silence is listed, applies in the daemon, and disappears when it is ended."""
    assert invoke(tmp_path, "list").output == "no silences\n"
    added = invoke(
        tmp_path, "add", "shop.billing.*", "shop.x", "--for", "2h", "--reason", "deploy 4711", "--queue", "bulk"
    )
    assert added.exit_code == 0
    (one,) = store.silences.current(AT)
    assert added.output == f"silence {one.id} of shop.billing.*, shop.x until 2026-11-23T16:02:11Z\n"
    assert (one.match, one.queues, one.reason) == (("shop.billing.*", "shop.x"), ("bulk",), "deploy 4711")
    assert (one.starts_at, one.ends_at, one.created_by) == (AT, AT + 7200, "ada")
    shown = invoke(tmp_path, "list").output.splitlines()
    assert " ".join(shown[0].split()) == "ID TASKS QUEUES STARTS ENDS BY REASON"
    assert " ".join(shown[1].split()) == (
        f"{one.id} shop.billing.* shop.x bulk 2026-11-23T14:02:11Z 2026-11-23T16:02:11Z ada deploy 4711"
    )
    ended = invoke(tmp_path, "end", one.id)
    assert ended.output == f"silence {one.id} of shop.billing.*, shop.x has ended\n"
    assert store.silences.current(AT) == []
    assert one.id in invoke(tmp_path, "list", "--ended").output
    again = invoke(tmp_path, "end", one.id)
    assert (again.exit_code, again.output) == (
        1,
        "error: no silence with this ID is in effect: see celery-monitor silence list\n",
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["x.*", "--reason", "deploy"], "Missing option '--for'"),
        (["x.*", "--for", "2h"], "Missing option '--reason'"),
        (["--for", "2h", "--reason", "deploy"], "Missing argument 'GLOB...'"),
        (["x.*", "--for", "31d", "--reason", "deploy"], "must be from 1s to 30d"),
        (["x.*", "--for", "0", "--reason", "deploy"], "must be from 1s to 30d"),
        (["x.*", "--for", "2", "--reason", "deploy"], "is not a duration"),
        (["x.*", "--for", "forever", "--reason", "deploy"], "is not a duration"),
        (["x.*", "--for", "2h", "--reason", " "], "reason: give a reason of 1 to 500 characters"),
        (["", "--for", "2h", "--reason", "deploy"], "match: must be"),
        (["a\x1b[2J", "--for", "2h", "--reason", "deploy"], "match: must be"),
    ],
)
def test_no_silence_without_an_end_and_a_reason(
    store: SqlStore, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    """Each mistake is a usage error that names it, and nothing is stored."""
    result = invoke(tmp_path, "add", *arguments)
    assert result.exit_code == 2
    assert expected in result.output
    assert store.silences.current(AT) == []


def test_silences_are_bounded(store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop cannot fill the store; ended silences do not count."""
    monkeypatch.setattr("celery_monitor.adapters.store.silences.MAX_SILENCES", 2)
    for _ in range(2):
        assert invoke(tmp_path, "add", "x.*", "--for", "1h", "--reason", "loop").exit_code == 0
    full = invoke(tmp_path, "add", "x.*", "--for", "1h", "--reason", "loop")
    assert full.exit_code == 1
    assert "there are 2 silences already" in full.output.replace("500", "2")
    invoke(tmp_path, "end", store.silences.current(AT)[0].id)
    assert invoke(tmp_path, "add", "x.*", "--for", "1h", "--reason", "loop").exit_code == 0
