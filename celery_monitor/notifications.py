"""Builds and runs the notifiers of all channels, each with a thread and a sender of its own."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from msgspec import structs

from celery_monitor.adapters import channels
from celery_monitor.adapters.channels import Channel
from celery_monitor.adapters.store import SqlStore
from celery_monitor.core.links import fill, of_incident
from celery_monitor.core.model import Changes, Incident, OutboxRequest
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import Clock, RepeatingSender, Sender
from celery_monitor.runtime.lease import HeldLease
from celery_monitor.runtime.notifier import Notifier, Unconfigured
from celery_monitor.runtime.repeater import Repeater
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.threads import Threads
from celery_monitor.runtime.uncommitted import UncommittedPages


class Notifications:
    """Sends what is due in the outbox from ``start`` on. ``committed`` and ``offer`` belong to the pump's thread."""

    def __init__(self, configured: Sequence[Channel], store: SqlStore, clock: Clock) -> None:
        """Does no I/O."""
        self._channels = configured
        self._outbox = store.outbox
        self._shared = store.shared
        self._clock = clock
        self._uncommitted = {
            channel.name: UncommittedPages(store.outbox, clock, channel.name)
            for channel in channels.of_incidents(configured)
        }
        self._senders: list[Sender] = []
        self._notifiers: dict[str, Notifier] = {}
        """Channel name → its notifier."""

    @property
    def incident_threads(self) -> tuple[str, ...]:
        """Names of the threads that send incidents."""
        return tuple(map(thread_of, self._uncommitted))

    def start(
        self,
        threads: Threads,
        report: DayReport,
        lease: HeldLease,
        *,
        external_url: str | None,
        links: Mapping[str, str],
        limit: float,
    ) -> None:
        """Begin to send. ``limit``: seconds, in addition to the channel's own timeout, after which a thread is stuck.

        ``links``: title → template of links to other systems.
        """
        for channel in self._channels:
            rows = self._uncommitted.get(channel.name, self._outbox)
            context = channels.Context(
                clock=self._clock,
                incident=_linked(rows.incident, links),
                summary=report.summary,
                note=self._outbox.note,
                external_url=external_url,
                replicated=self._shared,
            )
            sender = channel.sender(context)
            notifier = Notifier(
                rows,
                sender,
                self._clock,
                rate_limit=channel.rate_limit,
                idempotent=channel.idempotent,
                repeater=self._repeater(channel, sender),
                may_send=partial(lease.may_send, idempotent=channel.idempotent),
            )
            self._senders.append(sender)
            self._notifiers[channel.name] = notifier
            threads.start(thread_of(channel.name), notifier.run, limit=limit + channel.timeout, restart=True)
        self._give_up_strays()

    def _repeater(self, channel: Channel, sender: Sender) -> Repeater | None:
        if channel.repeat is None or not isinstance(sender, RepeatingSender):
            return None
        return Repeater(self._outbox, channel.name, sender.repeat, self._clock, channel.repeat)

    def offer(self, waiting: list[tuple[OutboxRequest, Incident]]) -> None:
        """The store cannot be written: send these pages from memory."""
        for name, uncommitted in self._uncommitted.items():
            if uncommitted.offer(waiting):
                self._notifiers[name].wake()

    def stored(self, changes: Changes) -> None:
        """A flush was committed: send its notifications. Called by the committer's thread, before ``committed``."""
        for name in {row.channel for row in changes.outbox}:
            if name in self._notifiers:
                self._notifiers[name].wake()

    def committed(self, changes: Changes) -> None:
        """A flush was committed: its pages are no longer needed in memory."""
        for uncommitted in self._uncommitted.values():
            uncommitted.written(changes)

    def wake(self) -> None:
        """Make all notifiers read the outbox and check whether to stop."""
        for notifier in self._notifiers.values():
            notifier.wake()

    def interrupt(self) -> None:
        """Interrupt requests in progress if that is safe, because the threads are being stopped."""
        self.wake()
        for sender in self._senders:
            sender.stop()

    def attempts(self) -> Mapping[tuple[str, str], int]:
        """(channel, outcome) → attempts since the start."""
        return {
            (channel, outcome): number
            for channel, notifier in self._notifiers.items()
            for outcome, number in notifier.notifications().items()
        }

    def _give_up_strays(self) -> None:
        """Mark rows of channels that are no longer configured as dead: they would wait forever, unnoticed."""
        with contextlib.suppress(StoreUnavailableError):
            for name in self._outbox.pending().keys() - self._notifiers.keys():
                stray = Notifier(self._outbox, Unconfigured(name), self._clock)
                while stray.run_once():
                    pass


def thread_of(channel: str) -> str:
    """The name of a channel's thread."""
    return f"notifier-{channel}"


def _linked(find: Callable[[str], Incident | None], templates: Mapping[str, str]) -> Callable[[str], Incident | None]:
    """``find``, with the links of the incident filled in."""

    def linked(key: str) -> Incident | None:
        incident = find(key)
        if incident is None or not templates:
            return incident
        return structs.replace(incident, links=tuple(fill(templates, of_incident(incident))))

    return linked
