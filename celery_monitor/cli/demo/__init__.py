"""``celery-monitor demo``: a broker, a fleet, the monitor and its receivers in one process, without installation.

No other package imports from here. The fleet is an ordinary Celery application that does not know the monitor.
"""

from celery_monitor.cli.demo.command import demo

__all__ = ["demo"]
