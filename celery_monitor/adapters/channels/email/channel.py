"""The channel of the daily report (section ``email``) and mail channels for incidents, which use the same server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from celery_monitor.adapters.channels import (
    Channel,
    Check,
    CheckState,
    Context,
    DailyReport,
    TestResult,
    entries,
    no_rule,
    of_entry,
)
from celery_monitor.adapters.channels.email.delivery import max_duration
from celery_monitor.adapters.channels.email.incident import INCIDENTS, IncidentMailer
from celery_monitor.adapters.channels.email.message import DAILY
from celery_monitor.adapters.channels.email.render import render_html, render_part, render_text
from celery_monitor.adapters.channels.email.sender import EmailSender, describe, send_test, server_of
from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.settings import EmailEntry
from celery_monitor.adapters.channels.email.smtp import SendResult, check_reachable
from celery_monitor.core.summary import Summary
from celery_monitor.errors import ConfigError, DeliveryError, Problem
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import EmailSettings, Settings, email_address

NAME: Final = "email"
_CHECK_DEADLINE: Final = 20.0
_NEEDS: Final = Problem("email.to", "must be set, together with email.from")


def configured(settings: Settings) -> list[Channel]:
    """The channel of the section, which is off without recipients, and one for each entry."""
    section = settings.email
    return [_daily(section), *(_of_incidents(section, entry) for entry in entries(settings, EmailEntry))]


def problems(settings: Settings) -> Iterator[Problem]:
    """The settings of the section that the entries need and that are missing."""
    names = [entry.name for entry in entries(settings, EmailEntry)]
    if names and settings.email.from_ is None:
        yield Problem("email.from", f"must be set: {', '.join(names)} in channels sends mail from it")


def _daily(section: EmailSettings) -> Channel:
    mail = Mail(section)
    to = f"on, to {', '.join(section.to)} at {section.schedule} ({section.timezone})"
    return Channel(
        name=NAME,
        title="Mail",
        routes=frozenset({""} if section.to else ()),
        summary=to if section.to else "off: email.to is empty",
        off="no email.to: the daily mail is not sent",
        needs=_NEEDS,
        timeout=max_duration(len(section.to)),
        sender=mail.sender,
        test=mail.test,
        check=mail.check,
        secrets=(section.password_source(),),
        # A mail may have arrived although its outcome is unknown, so do not send it again after a restart.
        idempotent=False,
        report=DailyReport(
            schedule=section.schedule,
            timezone=section.timezone,
            html=render_html,
            text=render_text,
            part=render_part,
            resend=mail.resend,
        ),
    )


def _of_incidents(section: EmailSettings, entry: EmailEntry) -> Channel:
    return of_entry(
        entry,
        IncidentMail(section, entry),
        title="Mail",
        to=", ".join(entry.to),
        timeout=max_duration(len(entry.to)),
        rate_limit=entry.rate_limit,
        secrets=(section.password_source(),),
        idempotent=False,  # as above
    )


@dataclass(frozen=True, slots=True)
class Mail:
    """The server and the recipients of the daily report."""

    settings: EmailSettings

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return EmailSender(
            self.settings, context.summary, context.external_url, note=context.note, replicated=context.replicated
        )

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Send a test mail to all recipients. See Test."""
        del clock
        no_rule(rule, "recipients")
        if not self.settings.to:
            raise ConfigError([_NEEDS])
        return _test(self.settings, fleet, self.settings.to, DAILY)

    def resend(self, summary: Summary, external_url: str | None) -> TestResult:
        """See DailyReport."""
        sender = EmailSender(self.settings, lambda _date, _now: summary, external_url)
        return _test_result(sender.resend(summary), server_of(self.settings))

    def check(self) -> Check:
        """Connect to the server and log in as for a mail."""
        if not self.settings.to:
            return Check(CheckState.OFF, "email.to is empty: no mail is sent")
        return _check(self.settings, NAME, {f"email.to[{n}]": address for n, address in enumerate(self.settings.to)})


@dataclass(frozen=True, slots=True)
class IncidentMail:
    """The server and the recipients of mails about incidents."""

    section: EmailSettings
    entry: EmailEntry

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return IncidentMailer(
            channel=self.entry.name,
            server=server_of(self.section),
            sender=self.section.from_,
            to=self.entry.to,
            incident=context.incident,
            note=context.note,
            external_url=context.external_url,
            replicated=context.replicated,
        )

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Send a test mail to all recipients. See Test."""
        del clock
        no_rule(rule, "recipients")
        return _test(self.section, fleet, self.entry.to, INCIDENTS)

    def check(self) -> Check:
        """As for the daily report."""
        name = self.entry.name
        return _check(self.section, name, {f"to[{n}] of {name}": address for n, address in enumerate(self.entry.to)})


def _test(section: EmailSettings, fleet: str, to: Sequence[str], content: str) -> TestResult:
    server = server_of(section)
    return _test_result(send_test(section, fleet, server, to=to, content=content), server)


def _check(section: EmailSettings, name: str, recipients: Mapping[str, str]) -> Check:
    """Check the server. ``recipients``: the field of each address."""
    server = server_of(section)
    try:
        international = check_reachable(server, deadline=_CHECK_DEADLINE)
    except DeliveryError as exc:
        remedy = exc.remedy or "check email.host, port, security, username and password"
        return Check(CheckState.FAIL, f"{exc}: {remedy}")
    if not international and (needed_by := _beyond_ascii({"email.from": section.from_, **recipients})):
        return Check(
            CheckState.FAIL,
            f"{server} answers, but has no SMTPUTF8, which {', '.join(needed_by)} needs (characters outside of "
            "ASCII before the @): use an address in ASCII, or a server with SMTPUTF8",
        )
    login = " and accepts the login" if server.username is not None else ""
    message = f"{server} answers ({server.security}){login}: `celery-monitor notify test {name}` sends a mail"
    return Check(CheckState.OK, message)


def _beyond_ascii(addresses: Mapping[str, str | None]) -> list[str]:
    """The fields of addresses that require a server with SMTPUTF8."""
    return [
        field
        for field, address in addresses.items()
        if address is not None and email_address.parse(address).international
    ]


def _test_result(delivery: SendResult, server: SmtpServer) -> TestResult:
    text = describe(delivery, server)
    if delivery.refused or delivery.unknown or delivery.interruption is not None:
        missed = f"not every recipient was accepted: {server} accepted {len(delivery.accepted)} of them"
        return TestResult(text, missed)
    return TestResult(text)
