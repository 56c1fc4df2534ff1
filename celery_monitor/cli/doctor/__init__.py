"""``celery-monitor doctor``: what the daemon needs, looked at from outside and without changing anything.

It can run beside the daemon, which does not notice, and on another machine with the same configuration.
"""

from celery_monitor.cli.doctor.command import doctor

__all__ = ["doctor"]
