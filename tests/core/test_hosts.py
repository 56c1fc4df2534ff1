"""The label of hosts."""

from celery_monitor.core.hosts import MAX_HOSTS, Hosts
from celery_monitor.core.text import OTHER
from tests.builders import NOON


def test_labels() -> None:
    """The part after the @, printable, at most 255 characters."""
    of = Hosts(purge=600.0)
    names = ("celery@box", "gen123@web", "box", "w@a\nb", "w@" + "x" * 1000)
    assert [of.record(name, NOON) for name in names] == ["box", "web", "box", "a\ufffdb", "x" * 255]


def test_invented_hosts_are_one() -> None:
    """A new host name in each event does not create a series for each."""
    of = Hosts(purge=600.0)
    labels = {of.record(f"w@{number}", NOON) for number in range(MAX_HOSTS + 100)}
    assert len(labels) == MAX_HOSTS + 1
    assert OTHER in labels
    assert of.record("w@0", NOON) == "0"
    assert len(of.tick([], NOON + 601)) == MAX_HOSTS
