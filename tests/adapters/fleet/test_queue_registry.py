"""The known queues over several rounds of queries."""

from collections.abc import Container, Mapping

from celery_monitor.adapters.broker.queue_registry import (
    ABSENT_RETRY_BASE,
    IDLE_RETENTION,
    MAX_MISSED_ROUNDS,
    MAX_PAST_CHECKED,
    MAX_QUEUES,
    QueueRegistry,
    Size,
)
from celery_monitor.core.model import QueueStats

NOW = 1000.0
EMPTY = (0, 0)


def rounds(
    of: QueueRegistry,
    number: int,
    *answers: Mapping[str, list[str]],
    sizes: Mapping[str, Size] | None = None,
    now: float = NOW,
    down: Container[str] = (),
) -> list[QueueStats]:
    """So many rounds, of which the last ones have these answers, with two processes a worker; what the last one told.

    All queues exist and are empty but those that ``sizes`` has, or all that it has not are gone.
    """
    reported: list[QueueStats] = []
    for answer in [*({} for _ in range(number - len(answers))), *answers]:
        of.record_answers(answer, dict.fromkeys(answer, 2), down)
        asked = [*of.names(), *of.unconfirmed(now)]
        reported = of.measured({name: EMPTY if sizes is None else sizes.get(name) for name in asked}, now)
    return reported


def names(reported: list[QueueStats]) -> list[str]:
    """The names of the reported queues."""
    return [one.name for one in reported]


def test_a_queue_outlives_its_workers() -> None:
    """Its length is reported without workers and processes: then its alert matters."""
    of = QueueRegistry([])
    rounds(of, 1, {"a@box": ["pay"], "b@box": ["pay"]})
    assert rounds(of, MAX_MISSED_ROUNDS, sizes={"pay": (50, 0)}) == [QueueStats("pay", 50, 0, 0, 0)]
    assert rounds(of, 100, sizes={"pay": (50, 0)}, now=NOW + 10 * IDLE_RETENTION) == [QueueStats("pay", 50, 0, 0, 0)]


def test_a_late_answer_changes_nothing() -> None:
    """A worker that missed some rounds is counted, with its processes, until it has missed too many."""
    of = QueueRegistry([])
    rounds(of, 1, {"a@box": ["pay"], "b@box": ["pay"]})
    for _ in range(3):
        assert rounds(of, MAX_MISSED_ROUNDS - 1, {"a@box": ["pay"]}) == [QueueStats("pay", 0, 0, 2, 4)]
        assert of.worker_queues() == {"a@box": ["pay"], "b@box": ["pay"]}
        rounds(of, 1, {"b@box": ["pay"]})
    assert rounds(of, MAX_MISSED_ROUNDS) == [QueueStats("pay", 0, 0, 0, 0)]
    assert of.worker_queues() == {}


def test_processes_that_are_told_late() -> None:
    """A worker that answered one of two queries keeps its processes."""
    of = QueueRegistry([])
    rounds(of, 1, {"a@box": ["pay"]})
    of.record_answers({"a@box": ["pay", "mail"]}, {}, ())
    assert [(one.workers, one.processes) for one in of.measured({}, NOW)] == [(1, 2), (1, 2)]


def test_a_worker_that_said_goodbye() -> None:
    """A worker that is down counts only until its silence, so that a rollout does not double a number."""
    of = QueueRegistry([])
    rounds(of, 1, {"old@box": ["pay"], "new@box": ["pay"]})
    assert rounds(of, 1, {"old@box": ["pay"]}, down={"old@box"}) == [QueueStats("pay", 0, 0, 2, 4)]
    assert rounds(of, 1, {"new@box": ["pay"]}, down={"old@box"}) == [QueueStats("pay", 0, 0, 1, 2)]


def test_a_queue_that_the_broker_does_not_know() -> None:
    """It is forgotten once nobody consumes it, unless it is configured."""
    of = QueueRegistry(["named"])
    rounds(of, 1, {"a@box": ["pay", "named"]})
    assert rounds(of, 1, {"a@box": ["pay", "named"]}, sizes={}) == [
        QueueStats("named", None, None, 1, 2),
        QueueStats("pay", None, None, 1, 2),
    ]
    assert rounds(of, MAX_MISSED_ROUNDS, sizes={}) == [QueueStats("named", None, None, 0, 0)]


def test_a_queue_that_is_of_no_use() -> None:
    """It is forgotten an hour after its last worker and task; an unknown length does not count as a task."""
    for idle in (EMPTY, (None, None)):
        of = QueueRegistry([])
        rounds(of, 1, {"a@box": ["pay"]})
        sizes: dict[str, Size] = {"pay": (1, 0)}
        rounds(of, MAX_MISSED_ROUNDS, sizes=sizes, now=NOW + 1)
        sizes["pay"] = idle
        assert names(rounds(of, 1, sizes=sizes, now=NOW + IDLE_RETENTION)) == ["pay"]
        assert names(rounds(of, 1, sizes=sizes, now=NOW + 2 * IDLE_RETENTION - 1)) == ["pay"]
        assert names(rounds(of, 1, {"a@box": ["pay"]}, sizes=sizes, now=NOW + 2 * IDLE_RETENTION)) == ["pay"]
        rounds(of, MAX_MISSED_ROUNDS, sizes=sizes, now=NOW + 3 * IDLE_RETENTION)
        assert names(rounds(of, 1, sizes=sizes, now=NOW + 4 * IDLE_RETENTION - 1)) == ["pay"]
        assert rounds(of, 1, sizes=sizes, now=NOW + 4 * IDLE_RETENTION) == []


def test_an_outage_of_the_broker_is_nobodys_idleness() -> None:
    """After an outage, a queue in use before it is kept for an hour."""
    of = QueueRegistry([])
    rounds(of, 1, {"a@box": ["pay"]})
    assert names(rounds(of, MAX_MISSED_ROUNDS, now=NOW + 10 * IDLE_RETENTION)) == ["pay"]


def test_queues_of_one_worker_each_go_with_it() -> None:
    """Queues of single pods do not pile up; those that are not empty stay."""
    of = QueueRegistry([])
    for generation in range(100):
        hosts = [f"celery@pod-{generation}.{number}" for number in range(20)]
        reported = rounds(of, MAX_MISSED_ROUNDS + 1, {host: ["pay", f"{host}.dq2"] for host in hosts}, {}, {}, {}, {})
        assert names(reported) == ["pay"]
    rounds(of, 1, {"celery@left": ["celery@left.dq2"]})
    sizes: dict[str, Size] = {"pay": EMPTY, "celery@left.dq2": (3, 0)}
    assert rounds(of, MAX_MISSED_ROUNDS, sizes=sizes) == [
        QueueStats("celery@left.dq2", 3, 0, 0, 0),
        QueueStats("pay", 0, 0, 0, 0),
    ]


def test_names_are_bounded() -> None:
    """Configured queues come first, then consumed ones, then the last used."""
    of = QueueRegistry(["named"])
    rounds(of, 1, {"a@box": ["first"]})
    rounds(of, MAX_MISSED_ROUNDS, now=NOW + 1)
    rounds(of, 1, {"a@box": ["second"]})
    rounds(of, MAX_MISSED_ROUNDS, now=NOW + 2)
    rounds(of, 1, {"b@box": [f"q{number}" for number in range(MAX_QUEUES - 2)]}, now=NOW + 3)
    assert of.names()[:2] == ["named", "q0"]
    assert of.names()[-1] == "second"
    assert len(of.names()) == MAX_QUEUES
    rounds(of, 1, {"b@box": [f"r{number}" for number in range(2 * MAX_QUEUES)]}, now=NOW + 3)
    assert len(of.names()) == MAX_QUEUES


def invented(number: int, prefix: str = "invented") -> list[str]:
    """Names of missing queues."""
    return [f"{prefix}{each}" for each in range(number)]


def test_queues_that_do_not_exist_are_asked_for_ever_more_rarely() -> None:
    """After a minute, then two, at last once an hour, as long as a worker names them."""
    of = QueueRegistry([])
    asked_at = []
    for now in range(0, 6 * 3600, 15):
        if "invented0" in [*of.names(), *of.unconfirmed(now)]:
            asked_at.append(now)
        reported = rounds(of, 1, {"a@box": ["pay", "invented0"]}, sizes={"pay": (3, 1)}, now=float(now))
        assert reported == [QueueStats("pay", 3, 1, 1, 2), QueueStats("invented0", None, None, 1, 2)]
        assert of.names() == ["pay"]
    assert asked_at[:5] == [60, 180, 420, 900, 1860]
    assert 8 <= len(asked_at) <= 12
    assert names(rounds(of, MAX_MISSED_ROUNDS, {"a@box": ["pay"]}, sizes={"pay": (3, 1)})) == ["pay"]


def test_a_queue_that_comes_late() -> None:
    """A queue that did not exist at first is reported once it exists, and again after a deletion."""
    of = QueueRegistry([])
    rounds(of, 1, {"a@box": ["pay"]}, sizes={})
    assert of.unconfirmed(NOW + ABSENT_RETRY_BASE - 1) == []
    assert of.unconfirmed(NOW + ABSENT_RETRY_BASE) == ["pay"]
    rounds(of, 1, {"a@box": ["pay"]}, sizes={"pay": (1, 1)}, now=NOW + ABSENT_RETRY_BASE)
    assert of.names() == ["pay"]
    rounds(of, 1, {"a@box": ["pay"]}, sizes={}, now=NOW + ABSENT_RETRY_BASE)
    assert (of.names(), of.unconfirmed(NOW + 2 * ABSENT_RETRY_BASE)) == ([], ["pay"])


def test_queues_that_were_not_asked_for_come_first() -> None:
    """Queues skipped in a round come next, before those that were refused."""
    of = QueueRegistry([])
    of.record_answers({"a@box": invented(50)}, {}, ())
    of.measured(dict.fromkeys(of.unconfirmed(NOW)[:20]), NOW)
    assert of.unconfirmed(NOW) == invented(50)[20:]
    assert of.unconfirmed(NOW + ABSENT_RETRY_BASE) == [*invented(50)[20:], *invented(20)]


def test_a_worker_that_names_thousands_keeps_out_nobody() -> None:
    """The queues of the others are still queried and reported."""
    of = QueueRegistry([])
    of.record_answers({"hostile@box": invented(3 * MAX_QUEUES), "a@box": ["pay", "mail"]}, {}, ())
    assert {"pay", "mail"} < {*of.unconfirmed(NOW)}
    assert {"pay", "mail"} < {*names(of.measured({}, NOW))}


def test_queues_of_before_a_restart() -> None:
    """They are reported if they are not empty, in turns; missing ones are not queried again."""
    past = [f"q{number}" for number in range(MAX_PAST_CHECKED)]
    of = QueueRegistry(["named"], [*past, "late"])
    assert of.names() == ["named", *past]
    sizes: dict[str, Size] = dict.fromkeys(("named", *past, "late"), EMPTY)
    sizes |= {"q1": (3, 0), "q2": (None, None), "late": (2, 0)}
    del sizes["q3"]
    named, q1, late = QueueStats("named", 0, 0, 0, 0), QueueStats("q1", 3, 0, 0, 0), QueueStats("late", 2, 0, 0, 0)

    assert rounds(of, 1, sizes=sizes) == [named, q1]
    assert rounds(of, 1, sizes=sizes) == [named, q1, late]
    assert {*of.names()} == {"named", *past, "late"} - {"q2", "q3"}
    sizes["q0"] = (1, 0)
    reported = rounds(of, 1, sizes=sizes)
    assert reported == [named, q1, late, QueueStats("q0", 1, 0, 0, 0)]
    assert rounds(of, 1, {"a@box": ["q4"]}, sizes=sizes) == [
        QueueStats("named", 0, 0, 0, 0),
        QueueStats("q4", 0, 0, 1, 2),
        *reported[1:],
    ]


def test_queues_of_before_a_restart_beside_many() -> None:
    """However many queues are consumed, those from before are queried."""
    of = QueueRegistry([], ["past"])
    reported = rounds(of, 1, {"a@box": [f"q{number}" for number in range(MAX_QUEUES)]})
    assert len(reported) == MAX_QUEUES
    assert of.names()[-1] == "past"


def test_queues_of_a_broadcast_are_one() -> None:
    """Each worker has one with a random name, new after each restart: their sum is reported."""
    uuids = [f"{number:08x}-1111-4222-8333-123456789abc" for number in range(6)]
    of = QueueRegistry([])
    answer = {f"w{number}@box": ["pay", f"bcast.{uuid}"] for number, uuid in enumerate(uuids)}
    reported = rounds(of, 1, answer, sizes={"pay": (1, 6)} | {f"bcast.{uuid}": (2, 1) for uuid in uuids})
    assert reported == [QueueStats("pay", 1, 6, 6, 12), QueueStats("bcast.*", 12, 6, 6, 12)]
    assert of.worker_queues()["w0@box"] == ["pay", "bcast.*"]
    restarted = {f"w{number}@box": ["pay", f"bcast.{uuid[::-1]}"] for number, uuid in enumerate(uuids)}
    of = QueueRegistry([f"bcast.{uuids[0]}"])
    reported = rounds(
        of, 1, restarted | answer, sizes={f"bcast.{uuid}": (2, None) for uuid in uuids} | {"pay": (None, None)}
    )
    assert reported == [
        QueueStats(f"bcast.{uuids[0]}", 2, None, 1, 2),
        QueueStats("pay", None, None, 6, 12),
        QueueStats("bcast.*", 10, None, 5, 10),
    ]
