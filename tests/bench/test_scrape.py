"""``bench/scrape.py`` connects the parts of the daemon itself, so a change of theirs can break it."""

from pathlib import Path

from bench.scrape import Daemon


def test_its_daemon_counts_and_can_be_scraped(tmp_path: Path) -> None:
    """The benchmark's own composition root works with the parts as they are."""
    daemon = Daemon(50_000, f"sqlite:///{tmp_path}/bench.db")
    daemon.start()
    try:
        assert daemon.snapshot().series
    finally:
        daemon.stop()
