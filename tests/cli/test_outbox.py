"""``celery-monitor outbox`` on a real store that a daemon has open."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.cli import main
from celery_monitor.core.model import Action, OutboxItem, OutboxRequest
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
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run at that time, regardless of the machine's clock."""
    monkeypatch.setattr("celery_monitor.cli.outbox.SystemClock", lambda: ManualClock(AT + 3600))


def invoke(tmp_path: Path, *arguments: str) -> Result:
    """Run the command on the daemon's store."""
    return CliRunner().invoke(
        main, ["outbox", *arguments], env={"CELERY_MONITOR_STORE__URL": f"sqlite:///{tmp_path}/monitor.db"}
    )


def add(store: SqlStore, key: str, *, dead: str | None = None) -> OutboxItem:
    """A waiting row, or one that was given up for this reason."""
    store.outbox.enqueue(OutboxRequest("pagerduty", key, Action.TRIGGER, due_at=AT), AT)
    item = store.outbox.items(dead=False, limit=100).rows[-1]
    if dead is not None:
        store.outbox.dead(item, AT, dead)
    return item


NEXT_TRY = 6


def table(output: str) -> list[list[str]]:
    """The cells of each row, without the header."""
    return [re.split(r"  +", row) for row in output.splitlines()[1:]]


def test_an_empty_outbox(store: SqlStore, tmp_path: Path) -> None:
    """The output says that there is nothing to list."""
    assert invoke(tmp_path, "list").output == "no pending or failed notifications\n"
    assert invoke(tmp_path, "list", "--dead").output == "no failed notifications\n"


def test_lists_what_waits_and_what_is_dead(store: SqlStore, tmp_path: Path) -> None:
    """A line for each row, with state, attempts, times in UTC, and the last error; --dead lists only dead ones."""
    add(store, "shop.charge/2026-11-23T14Z", dead="PagerDuty responded with 400: invalid event")
    add(store, "shop.refund/2026-11-23T14Z")
    header, dead, waiting = (" ".join(row.split()) for row in invoke(tmp_path, "list").output.splitlines())
    assert header == "ID STATE CHANNEL ACTION ATTEMPTS CREATED NEXT TRY KEY LAST ERROR"
    assert dead == (
        "1 dead pagerduty trigger 1 2026-11-23T14:02:11Z never shop.charge/2026-11-23T14Z "
        "PagerDuty responded with 400: invalid event"
    )
    assert waiting == (
        "2 pending pagerduty trigger 0 2026-11-23T14:02:11Z 2026-11-23T14:02:11Z shop.refund/2026-11-23T14Z"
    )
    assert len(invoke(tmp_path, "list", "--dead").output.splitlines()) == 2


def test_nothing_in_a_row_controls_the_terminal(store: SqlStore, tmp_path: Path) -> None:
    """Escape sequences in a task's name or an error become question marks, and long texts are shortened."""
    add(store, "a\x1b[2Jb\nc" + "x" * 200, dead="\x1b]0;owned\x07")
    output = invoke(tmp_path, "list").output
    assert len(output.splitlines()) == 2
    assert "\x1b" not in output
    assert "a?[2Jb?c" in output
    assert "x…" in output


def test_more_rows_than_one_page(store: SqlStore, tmp_path: Path) -> None:
    """All rows are listed, however many."""
    for number in range(3):
        add(store, f"task-{number}")
    from celery_monitor.cli import outbox

    page, outbox._PAGE = outbox._PAGE, 2  # type: ignore[misc]
    try:
        assert len(invoke(tmp_path, "list").output.splitlines()) == 4
    finally:
        outbox._PAGE = page  # type: ignore[misc]


def test_retries_one_row(store: SqlStore, tmp_path: Path) -> None:
    """A dead row is due again immediately, for the running daemon."""
    item = add(store, "shop.charge", dead="400")
    add(store, "shop.refund", dead="400")
    result = invoke(tmp_path, "retry", str(item.id))
    assert (result.exit_code, result.output) == (0, "retrying 1 notification now\n")
    assert [row.key for row in store.outbox.due(AT * 2, 10)] == ["shop.charge"]


def test_retries_all_dead_rows(store: SqlStore, tmp_path: Path) -> None:
    """--all-dead retries every dead row; without any it succeeds."""
    assert invoke(tmp_path, "retry", "--all-dead").output == "retrying 0 notifications now\n"
    for key in "ab":
        add(store, key, dead="400")
    assert invoke(tmp_path, "retry", "--all-dead").output == "retrying 2 notifications now\n"


def test_retrying_what_is_not_there(store: SqlStore, tmp_path: Path) -> None:
    """An unknown ID exits with 1 and an error."""
    result = invoke(tmp_path, "retry", "77")
    assert result.exit_code == 1
    assert "notification 77" in result.output


@pytest.mark.parametrize("text", ["first", "0", "1x", "\u0663", "9" * 30])
def test_what_is_no_id(store: SqlStore, tmp_path: Path, text: str) -> None:
    """The error says where IDs are listed."""
    result = invoke(tmp_path, "retry", text)
    assert result.exit_code == 2
    assert "is not an ID: use one from the first column of `celery-monitor outbox list`" in result.stderr


def test_what_waits_for_another_row(store: SqlStore, tmp_path: Path) -> None:
    """Rows of one service are sent one by one; the output shows which row or time each waits for."""
    first, second = add(store, "shop.charge"), add(store, "shop.refund")
    other = OutboxRequest("pagerduty", "shop.stock", Action.TRIGGER, route="stock", due_at=AT)
    store.outbox.enqueue(other, AT)
    later = OutboxRequest("email", "2026-11-23", Action.REPORT, due_at=AT + 10 * 365 * 86_400)
    store.outbox.enqueue(later, AT)
    store.outbox.retry(first, AT + 60, "PagerDuty responded with 503")
    tries = [" ".join(row[NEXT_TRY].split()) for row in table(invoke(tmp_path, "list").output)]
    assert tries == [
        "2026-11-23T14:03:11Z", f"waits behind {first.id}", "2026-11-23T14:02:11Z", "2036-11-20T14:02:11Z",
    ]  # fmt: skip
    assert second.id > first.id
    store.outbox.delivered(first, AT, 1)
    assert table(invoke(tmp_path, "list").output)[0][NEXT_TRY] == "2026-11-23T14:02:11Z"


@pytest.mark.parametrize("arguments", [(), ("1", "--all-dead"), ("0",), ("first",)])
def test_retry_usage(store: SqlStore, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Neither or both of ID and --all-dead, and an invalid ID, are usage errors."""
    assert invoke(tmp_path, "retry", *arguments).exit_code == 2


def test_another_store(store: SqlStore, tmp_path: Path) -> None:
    """--store overrides the configuration."""
    item = add(store, "shop.charge", dead="400")
    there = ("--store", f"sqlite:///{tmp_path}/monitor.db")
    assert "shop.charge" in invoke(tmp_path / "elsewhere", "list", *there).output
    assert invoke(tmp_path / "elsewhere", "retry", str(item.id), *there).output == "retrying 1 notification now\n"


def test_no_store(tmp_path: Path) -> None:
    """Without a store the command exits with 1, names it, and does not create it."""
    result = invoke(tmp_path, "list")
    assert result.exit_code == 1
    assert "monitor.db" in result.output
    assert list(tmp_path.iterdir()) == []
