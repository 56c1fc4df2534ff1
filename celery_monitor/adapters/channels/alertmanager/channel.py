"""The channels of type alertmanager. All are entries of ``channels``."""

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from celery_monitor.adapters.channels import Channel, Check, CheckState, Context, TestResult, entries, no_rule, of_entry
from celery_monitor.adapters.channels.alertmanager.render import ALERTNAME
from celery_monitor.adapters.channels.alertmanager.settings import AlertmanagerEntry
from celery_monitor.core.times import rfc3339
from celery_monitor.errors import DeliveryError
from celery_monitor.ports import Clock, Sender
from celery_monitor.settings import Settings

if TYPE_CHECKING:
    from celery_monitor.adapters.channels.alertmanager.send import Alertmanagers

_TEST_LASTS: Final = 60.0
"""How long the test alert fires, in seconds."""
_READY: Final = "/-/ready"
_OK: Final = 200


def configured(settings: Settings) -> list[Channel]:
    """One channel for each entry."""
    return [
        of_entry(
            entry,
            Cluster(entry),
            title="Alertmanager",
            to=", ".join(entry.urls),
            timeout=entry.timeout * len(entry.urls),
            repeat=entry.repeat,
            rate_limit=entry.rate_limit,
            secrets=(entry.password_source(),),
        )
        for entry in entries(settings, AlertmanagerEntry)
    ]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Alertmanagers of an entry."""

    entry: AlertmanagerEntry

    def sender(self, context: Context) -> Sender:
        """See Channel."""
        return self._alertmanagers(context)

    def test(self, fleet: str, clock: Clock, rule: str | None) -> TestResult:
        """Fire an alert of severity info that ends within a minute. See Test."""
        no_rule(rule, "an Alertmanager")
        entry, now = self.entry, clock.now()
        name = f"celery-monitor-test-{secrets.token_hex(4)}"
        labels = {"alertname": ALERTNAME, "fleet": fleet, "severity": "info", "test": name}
        summary = f"Sent by `celery-monitor notify test {entry.name}`: nothing failed."
        alert = {
            "labels": {**entry.labels, **{key: value for key, value in labels.items() if value}},
            "annotations": {"summary": summary},
            "startsAt": rfc3339(now),
            "endsAt": rfc3339(now + _TEST_LASTS),
        }
        accepted_by = self._alertmanagers(Context.for_test(clock)).post([alert])
        message = f"{', '.join(accepted_by)} accepted the test alert {name}, which ends within a minute"
        missed = [url for url in entry.urls if url not in accepted_by]
        return TestResult(
            message, f"not every Alertmanager accepted it: {', '.join(missed)} did not" if missed else None
        )

    def check(self) -> Check:
        """Check that each Alertmanager is ready."""
        from celery_monitor.adapters.http.request import reach  # noqa: PLC0415 - requests is slow to import

        wrong = []
        for url in self.entry.urls:
            try:
                status = reach(f"{url}{_READY}", self.entry.timeout, self.entry.name)
            except DeliveryError as exc:
                wrong.append(f"{exc}: {exc.remedy or 'check its url'}")
            else:
                if status != _OK:
                    wrong.append(f"{url}{_READY} answered {status}: check that it is the base URL of an Alertmanager")
        if wrong:
            state = CheckState.FAIL if len(wrong) == len(self.entry.urls) else CheckState.WARN
            return Check(state, "; ".join(wrong))
        name = self.entry.name
        return Check(
            CheckState.OK, f"{', '.join(self.entry.urls)} answer: `celery-monitor notify test {name}` fires an alert"
        )

    def _alertmanagers(self, context: Context) -> "Alertmanagers":
        from celery_monitor.adapters.channels.alertmanager.send import Alertmanagers  # noqa: PLC0415 - as above

        entry = self.entry
        return Alertmanagers(
            channel=entry.name,
            urls=entry.urls,
            hold=entry.resolve_timeout,
            labels=entry.labels,
            username=entry.username,
            password=entry.password_source(),
            incident=context.incident,
            clock=context.clock,
            timeout=entry.timeout,
            external_url=context.external_url,
        )
