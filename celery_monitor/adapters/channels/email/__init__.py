"""Mail over SMTP (`smtp`): the daily report (`render`, `message`, `sender`) and mails about incidents (`incident`).

Nothing here reads the store or the wall clock: callables provide summaries and incidents, including their times.
`delivery` is common to all mails: it tracks the recipients and decides the outcome of the row. The rest of the program
uses only `channel`.
"""

from celery_monitor.adapters.channels.email.channel import configured, problems
from celery_monitor.adapters.channels.email.lint import warnings
from celery_monitor.adapters.channels.email.settings import EmailEntry

ENTRY = EmailEntry

__all__ = ["ENTRY", "configured", "problems", "warnings"]
