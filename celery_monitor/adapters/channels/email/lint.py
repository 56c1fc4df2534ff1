"""Warnings about valid but probably unintended settings of mail."""

from collections.abc import Iterator

from celery_monitor.adapters.channels.email.settings import EmailEntry
from celery_monitor.errors import Problem
from celery_monitor.settings import EmailSettings, Settings, email_address


def warnings(settings: Settings) -> Iterator[Problem]:
    """The warnings, each with its field and what to do."""
    yield from _in_clear(settings.email)
    yield from _international(settings)


def _in_clear(email: EmailSettings) -> Iterator[Problem]:
    if email.security == "none" and email.password_source().get() is not None:
        yield Problem(
            "email.security",
            "none sends the user name and password in clear text: use starttls or tls, or remove the password",
        )


def _international(settings: Settings) -> Iterator[Problem]:
    email = settings.email
    addresses = {"email.from": email.from_} | {f"email.to[{n}]": recipient for n, recipient in enumerate(email.to)}
    for number, entry in enumerate(settings.channels):
        if isinstance(entry, EmailEntry):
            addresses |= {f"channels[{number}].to[{n}]": recipient for n, recipient in enumerate(entry.to)}
    for path, address in addresses.items():
        if address is not None and email_address.parse(address).international:
            yield Problem(
                path,
                "has non-ASCII characters before the @: only a server with SMTPUTF8 accepts it; check yours with "
                "`celery-monitor notify test email`",
            )
    if email.hello is not None and "." not in email.hello:
        yield Problem("email.hello", "has no dot: strict servers refuse it; use a name like monitor.example.com")
