"""The daily mail: a day's Summary as HTML and text (`render`, `message`), by SMTP (`smtp`), from the outbox (`sender`).

Nothing here reads the store or the wall clock: summaries come from a callable, and their time with them. `channel` is
what the rest of the program sees.
"""

from celery_monitor.adapters.channels.email.channel import configured

ENTRY = None
"""Only the section defines a channel of this type."""

__all__ = ["ENTRY", "configured"]
