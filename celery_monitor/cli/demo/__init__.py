"""``celery-monitor demo``: a broker, a fleet, the monitor and its receivers in one process, with nothing installed.

Nothing else imports from here. The fleet is a user of Celery like any other: it knows nothing of the monitor.
"""

from celery_monitor.cli.demo.command import demo

__all__ = ["demo"]
