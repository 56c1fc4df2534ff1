"""The channel of the section ``email``: it carries the daily report."""

from dataclasses import dataclass
from typing import Final

from celery_monitor.adapters.channels import Channel, Check, CheckState, Context, DailyReport, Told
from celery_monitor.adapters.channels.email.render import render_html, render_part, render_text
from celery_monitor.adapters.channels.email.sender import EmailSender, describe, longest, send_test, server_of
from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.smtp import SendResult, check_reachable
from celery_monitor.core.summary import Summary
from celery_monitor.errors import ConfigError, DeliveryError, Problem
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import EmailSettings, Settings, email_address

NAME: Final = "email"
_CHECK_DEADLINE: Final = 20.0
_NEEDS: Final = Problem("email.to", "must be set, together with email.from")


def configured(settings: Settings) -> list[Channel]:
    """One channel, switched off without recipients."""
    section = settings.email
    mail = Mail(section)
    to = f"on, to {', '.join(section.to)} at {section.schedule} ({section.timezone})"
    return [
        Channel(
            name=NAME,
            title="Mail",
            routes=frozenset({""} if section.to else ()),
            summary=to if section.to else "off: email.to is empty",
            off="no email.to: the daily mail is not sent",
            needs=_NEEDS,
            timeout=longest(section),
            sender=mail.sender,
            test=mail.test,
            check=mail.check,
            secrets=(section.password_source(),),
            # A mail may have arrived though its outcome is unknown: a restart is no reason to send it again.
            idempotent=False,
            report=DailyReport(
                schedule=section.schedule,
                timezone=section.timezone,
                html=render_html,
                text=render_text,
                part=render_part,
                send_again=mail.send_again,
            ),
        )
    ]


@dataclass(frozen=True, slots=True)
class Mail:
    """The server, and who gets the mail."""

    settings: EmailSettings

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return EmailSender(
            self.settings, context.summary, context.external_url, note=context.note, takes_turns=context.takes_turns
        )

    def test(self, fleet: str, clock: Clock, rule: str | None) -> Told:
        """Send a test mail to all recipients. See Test."""
        del clock
        if rule is not None:
            raise ConfigError([Problem("--rule", "no rule has recipients of its own")])
        if not self.settings.to:
            raise ConfigError([_NEEDS])
        server = server_of(self.settings)
        return _told(send_test(self.settings, fleet, server), server)

    def send_again(self, summary: Summary, external_url: str | None) -> Told:
        """See DailyReport."""
        sender = EmailSender(self.settings, lambda _date, _now: summary, external_url)
        return _told(sender.send_again(summary), server_of(self.settings))

    def check(self) -> Check:
        """The server is reached and logged in to as for a mail."""
        if not self.settings.to:
            return Check(CheckState.OFF, "email.to is empty: no mail is sent")
        server = server_of(self.settings)
        try:
            international = check_reachable(server, deadline=_CHECK_DEADLINE)
        except DeliveryError as exc:
            remedy = exc.remedy or "check email.host, port, security, username and password"
            return Check(CheckState.FAIL, f"{exc}: {remedy}")
        if not international and (needed_by := _beyond_ascii(self.settings)):
            return Check(
                CheckState.FAIL,
                f"{server} answers, but has no SMTPUTF8, which {', '.join(needed_by)} needs (characters outside of "
                "ASCII before the @): use an address in ASCII, or a server with SMTPUTF8",
            )
        login = " and accepts the login" if server.username is not None else ""
        told = f"{server} answers ({server.security}){login}: `celery-monitor notify test {NAME}` sends a mail"
        return Check(CheckState.OK, told)


def _beyond_ascii(settings: EmailSettings) -> list[str]:
    """The fields of addresses that only a server with SMTPUTF8 takes."""
    addresses = [("email.from", settings.from_), *((f"email.to[{n}]", one) for n, one in enumerate(settings.to))]
    return [field for field, one in addresses if one is not None and email_address.parse(one).international]


def _told(delivery: SendResult, server: SmtpServer) -> Told:
    text = describe(delivery, server)
    if delivery.refused or delivery.unknown or delivery.left is not None:
        missed = f"not every recipient was accepted: {server} accepted {len(delivery.taken)} of them"
        return Told(text, missed)
    return Told(text)
