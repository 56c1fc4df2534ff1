"""Mails: the daily report (`render`, `message`, `sender`), and one for each incident (`incident`), by SMTP (`smtp`).

Nothing here reads the store or the wall clock: summaries and incidents come from callables, and their time with them.
`delivery` is what all mails share: who has one, and what becomes of its row. `channel` is what the rest of the program
sees.
"""

from celery_monitor.adapters.channels.email.channel import configured, problems
from celery_monitor.adapters.channels.email.lint import warnings
from celery_monitor.adapters.channels.email.settings import EmailEntry

ENTRY = EmailEntry

__all__ = ["ENTRY", "configured", "problems", "warnings"]
