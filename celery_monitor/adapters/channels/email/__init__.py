"""The daily mail: a day's Summary as HTML and text (`render`, `message`), by SMTP (`smtp`), from the outbox (`sender`).

Nothing here reads the store or the wall clock: summaries come from a callable, and their time with them.
"""

from celery_monitor.adapters.channels.email.render import render_html, render_part, render_text
from celery_monitor.adapters.channels.email.sender import EmailSender, describe, longest, send_test, server_of
from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.smtp import SendResult, check_reachable

__all__ = [
    "EmailSender",
    "SendResult",
    "SmtpServer",
    "check_reachable",
    "describe",
    "longest",
    "render_html",
    "render_part",
    "render_text",
    "send_test",
    "server_of",
]
