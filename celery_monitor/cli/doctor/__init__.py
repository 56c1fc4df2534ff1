"""``celery-monitor doctor``: checks everything that the daemon needs, without changing anything.

It can run while the daemon is running, without affecting it, and on another machine with the same configuration.
"""

from celery_monitor.cli.doctor.command import doctor

__all__ = ["doctor"]
