"""``python -m celery_monitor``: the same program as the ``celery-monitor`` command."""

from celery_monitor.cli import main

if __name__ == "__main__":
    main()
