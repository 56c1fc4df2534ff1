"""The sentences of the mail: the subject, the headline, and the caveats about the numbers."""

from collections.abc import Iterator

from celery_monitor.adapters.channels.email.text import count, duration, percent, plural, short_date, shorten
from celery_monitor.core.summary import TOLERANCE, Summary

FLEET_WIDTH = 40


def subject(summary: Summary) -> str:
    """The day in one line that is safe in a header."""
    return f"[{shorten(summary.fleet, FLEET_WIDTH)}] {_subject(summary)}"


def _subject(summary: Summary) -> str:
    day = f"{'' if summary.over else 'so far '}on {short_date(summary.date)}"
    if summary.unknown:
        return f"no data for {short_date(summary.date)}: the monitor was not running"
    notes = []
    if summary.new_errors:
        notes.append(plural(summary.new_errors, "new error"))
    if summary.missed:
        notes.append(f"{plural(summary.missed, 'scheduled start')} missed")
    if summary.incidents.undelivered:
        notes.append(f"{plural(len(summary.incidents.undelivered), 'page')} not delivered")
    if summary.lost:
        notes.append(f"{plural(sum(task.count for task in summary.lost), 'task')} lost")
    if not summary.health.complete:
        notes.append("partial data")
    note = f" ({', '.join(notes)})" if notes else ""
    if summary.day.failed:
        return f"{headline(summary)} {day}{note}"
    return f"{headline(summary).lower()} {day}, {plural(summary.day.executed, 'task')} ran{note}"


def headline(summary: Summary) -> str:
    """The result of the day in a few words."""
    if summary.unknown:
        return "No data for this day"
    if summary.day.failed:
        return f"{plural(summary.day.failed, 'failure')} in {plural(len(summary.tasks), 'task')}"
    return "No failures" if summary.health.complete else "No failures seen"


def tone(summary: Summary) -> str:
    """``bad``, ``doubtful`` or ``good``."""
    if summary.day.failed or summary.missed or summary.lost or summary.incidents.undelivered:
        return "bad"
    return "good" if summary.health.complete else "doubtful"


def introduction(summary: Summary) -> str:
    """Puts the headline into proportion: the number of tasks and the comparison with earlier days."""
    if summary.unknown:
        return "No failures were recorded, but some may have been missed."
    sentences = [f"{plural(summary.day.executed, 'task')} ran"]
    if summary.day.failed:
        sentences[0] += f", {percent(summary.day.rate)} of them failed"
    if summary.mean is None:
        sentences.append("No earlier day to compare with")
    elif not summary.mean.failed:
        either = "" if summary.day.failed else " either"
        sentences.append(f"No failures in {earlier(summary)}{either}")
    else:
        if summary.before:
            sentences.append(f"The day before: {plural(summary.before.failed, 'failure')}")
        if summary.mean.days > 1 or not summary.before:
            sentences.append(f"Average of {earlier(summary)}: {count(summary.mean.failed)}")
    return ". ".join(sentences) + "."


def earlier(summary: Summary) -> str:
    """The days with which this day is compared."""
    if summary.mean is None:
        return "no earlier day"
    if summary.mean.days > 1:
        return f"the {plural(summary.mean.days, 'day')} before"
    return "the day before" if summary.before else "the only day with data in the previous week"


def caveats(summary: Summary) -> Iterator[str]:
    """Why the numbers may be incomplete; nothing for a day that was monitored completely."""
    health = summary.health
    if not summary.over:
        yield f"The day is not over: this report covers its first {duration(health.elapsed)}."
    if summary.unknown:
        yield "The monitor was not running on this day and received none of its events later."
    elif health.uptime <= 0:
        yield "The monitor was not running on this day: the counts cover the events that the broker kept."
    elif health.down > TOLERANCE:
        yield (
            f"The monitor was down for {duration(health.down)} of {duration(health.elapsed)}. Tasks from that time "
            "are counted only if the broker kept their events."
        )
    if health.unread > TOLERANCE:
        yield (
            f"The event stream has not been read to the end of the day: the last {duration(health.unread)} may be "
            "incomplete."
        )
    if health.gap >= 1:
        yield f"The event stream was interrupted for {duration(health.gap)}: tasks from that time may be missing."
    if health.unobserved:
        yield (
            f"Workers ran {plural(health.unobserved, 'task')} whose events never arrived: "
            "this report does not include them."
        )
    if health.too_old:
        late = plural(health.too_old, "failure")
        yield f"{late} arrived too late to page (alerts.max_age). Each is counted in the hour in which it happened."


def watch(summary: Summary) -> str:
    """How long the monitor ran on that day."""
    health = summary.health
    ran = (
        f"all of {duration(health.elapsed)}"
        if health.down <= TOLERANCE
        else f"{duration(health.uptime)} of {duration(health.elapsed)}"
    )
    times = "once" if health.restarts == 1 else f"{count(health.restarts)} times"
    return f"{ran}, started {times}" if health.restarts else ran
