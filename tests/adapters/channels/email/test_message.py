import re
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser

import pytest

from celery_monitor.adapters.channels.email.message import report, trial
from celery_monitor.adapters.channels.email.phrases import introduction, subject
from celery_monitor.adapters.channels.email.render import (
    MAX_BYTES,
    PAGE_SIZE,
    SIZES,
    render_html,
    render_part,
    render_text,
)
from celery_monitor.adapters.channels.email.text import shorten
from celery_monitor.core.summary import LostTask, MissedSchedule, Summary
from tests.adapters.channels.email import days

URL = "https://monitor.shop.example/base/"
PEOPLE = ("ann@shop.example", "Bob B. <bob@shop.example>")

TERRIBLE = "200 new errors, 31 pages not delivered, partial data"


def mail(summary: Summary, *, again: bool = False, notes: tuple[str, ...] = ()) -> tuple[bytes, EmailMessage]:
    """The mail as bytes, and parsed."""
    raw = report(
        summary,
        sender="Shop monitor <monitor@shop.example>",
        recipients=PEOPLE,
        external_url=URL,
        notes=notes,
        again=again,
    )
    return raw, message_from_bytes(raw, policy=default)


class Page(HTMLParser):
    """The elements of an HTML document, and whether they are closed in order."""

    VOID = frozenset({"meta", "br", "wbr", "img", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_first_day_marks_nothing_as_new() -> None:
    """On the first day every error is new, so a mark would be useless."""
    error = [days.group("shop.images.resize", 4, first_at=days.START + 5.0)]
    buckets = days.failures(1, "shop.images.resize", 4, (13, 15))
    first, later = (days.make(buckets, error, counted_since=since) for since in (days.START + 900.0, 0.0))
    for marked, summary in ((False, first), (True, later)):
        html, text = render_html(summary), render_text(summary)
        assert ("new ones first" in html) is ("NEW ONES FIRST" in text) is marked
        assert ("&nbsp;new&nbsp;" in html) is ("NEW " in text) is marked
        assert "\nERRORS" in text
        assert ("(1 new error)" in subject(summary)) is marked


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("quiet", "[shop] no failures on Sunday 22 Nov, 24,233 tasks ran"),
        ("normal", "[shop] 37 failures in 3 tasks on Sunday 22 Nov (1 new error)"),
        ("terrible", f"[shop] 63,680 failures in 400 tasks on Sunday 22 Nov ({TERRIBLE})"),
        ("unknown", "[shop] no data for Sunday 22 Nov: the monitor was not running"),
    ],
)
def test_the_subject_says_it_all(name: str, line: str) -> None:
    """Failures, tasks, day, and everything urgent."""
    assert subject(days.DAYS[name]()) == line


def test_the_subject_of_a_quiet_day_that_was_not_watched_does_not_say_that_all_is_well() -> None:
    """The words "no failures seen" differ from "no failures"."""
    summary = days.make(days.traffic(1), counters={"uptime_seconds": 7_200.0})
    assert subject(summary) == "[shop] no failures seen on Sunday 22 Nov, 24,233 tasks ran (partial data)"


def test_the_subject_of_today_says_so_far() -> None:
    """A day that is not over has no final result."""
    summary = replace(days.normal(), over=False)
    assert subject(summary) == "[shop] 37 failures in 3 tasks so far on Sunday 22 Nov (1 new error)"


def test_the_headers_of_an_automatic_mail() -> None:
    """No out-of-office replies, working threads and filters, and the time of creation."""
    _, message = mail(days.normal())
    assert message["From"] == "Shop monitor <monitor@shop.example>"
    assert message["To"] == 'ann@shop.example, "Bob B." <bob@shop.example>'
    assert message["Date"] == "Mon, 23 Nov 2026 07:00:00 -0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Id"] == "<shop.celery-monitor.shop.example>"
    assert re.fullmatch(r"<report-2026-11-22-[0-9a-f]{12}@shop\.example>", message["Message-ID"])


def test_text_comes_first_and_html_last() -> None:
    """Mail programs show the last part that they support."""
    _, message = mail(days.normal())
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    contents = [part.get_content().replace("\r\n", "\n") for part in message.iter_parts()]
    assert contents == [
        render_text(days.normal(), URL, size=SIZES[0]),
        render_html(days.normal(), URL, size=SIZES[0]),
    ]


@pytest.mark.parametrize("name", days.DAYS)
def test_the_same_day_makes_the_same_mail(name: str) -> None:
    """A retry after a crash sends the same bytes."""
    assert mail(days.DAYS[name]())[0] == mail(days.DAYS[name]())[0]


def test_the_message_id_is_of_fleet_and_date() -> None:
    """Later numbers keep it; another fleet, another day, and a manual resend do not."""
    summary = days.normal()

    def identity(summary: Summary, *, again: bool = False) -> str:
        return str(mail(summary, again=again)[1]["Message-ID"])

    assert identity(days.quiet()) == identity(summary)
    others = {
        identity(replace(summary, fleet="Shop")),
        identity(replace(summary, date=summary.date.replace(day=21))),
        identity(summary, again=True),
    }
    assert len(others | {identity(summary)}) == 4


@pytest.mark.parametrize("fleet", ["s" * n for n in range(1, 41)] + ["ü" * 30, "магазин" * 5])
def test_a_subject_of_any_length_begins_on_its_own_line(fleet: str) -> None:
    """No header is folded before its first word, and encoded words have at most 75 characters."""
    summary = replace(days.normal(), fleet=fleet)
    raw, message = mail(summary)
    (line,) = re.findall(rb"^Subject:(.*)\r\n", raw, re.MULTILINE)
    assert len(line) > 10
    assert all(len(word) <= 75 for word in re.findall(rb"=\?\S+\?=", raw.partition(b"\r\n\r\n")[0]))
    assert message["Subject"] == subject(summary)


@pytest.mark.parametrize("name", days.DAYS)
def test_every_mail_is_small_and_fit_for_any_server(name: str) -> None:
    """Under 80 kB in total, 7-bit, no line over 998 bytes, every line ends with CRLF."""
    raw, _ = mail(days.DAYS[name]())
    assert len(raw) < MAX_BYTES
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert raw.count(b"\n") == raw.count(b"\r\n")


@pytest.mark.parametrize("char", ["<", ".", "a.", "a@", "://", "🔥", "\u202e", "ع", "&", "\ud800", "\n", "e\u0301"])
def test_400_failing_tasks_of_any_characters_stay_under_80_kb(char: str) -> None:
    """Names, exceptions, frames, messages, tracebacks and errors of endless length and worst-case characters."""
    long = char * 5_000
    summary = days.terrible()
    tasks = tuple(replace(task, name=f"{n}{long}", exception=long) for n, task in enumerate(summary.tasks))
    errors = tuple(
        replace(error, task=long, exception=long, frame=long, message=long, hostname=long, traceback=long)
        for error in summary.errors
    )
    late = tuple(replace(one, task=long, key=long, error=long) for one in summary.incidents.undelivered * 30)
    hostile = replace(
        summary, fleet=long, tasks=tasks, errors=errors, incidents=replace(summary.incidents, undelivered=late)
    )
    raw, message = mail(hostile, notes=(long,) * 50)
    assert len(raw) < MAX_BYTES
    assert len(render_html(hostile, URL).encode()) < MAX_BYTES
    assert len(message["Subject"]) < 250
    assert re.search(r"and 3\d\d more tasks", render_text(hostile, URL))


@pytest.mark.parametrize("name", days.DAYS)
def test_the_html_is_what_mail_programs_can_show(name: str) -> None:
    """Well-formed; layout tables are marked as such; nothing that Outlook or Gmail drop; nothing is fetched."""
    html = render_html(days.DAYS[name](), URL)
    page = Page(html)
    assert page.open == []
    assert not page.tags & {"script", "img", "svg", "link", "iframe", "form", "input", "video", "object", "base"}
    assert not re.search(r"flex|grid|data:|url\(|@import|position:|float:", html)
    tables = html.count("<table")
    assert tables == html.count('<table role="presentation"')
    assert not [name for tag, name, _ in page.attributes if name.startswith("on") or name == "src"]
    assert {tag for tag, name, value in page.attributes if name == "style" and "padding" in value} <= {
        "td",
        "body",
        "div",
    }
    links = [value for tag, name, value in page.attributes if name == "href"]
    assert all(link.startswith("https://monitor.shop.example/base/") for link in links)
    assert all(len(link) < 600 for link in links)


@pytest.mark.parametrize("render", [render_html, render_text])
def test_without_a_page_there_are_no_links(render: type) -> None:
    """Without external_url there are no links."""
    assert "http" not in render(days.make(days.traffic(1)))


def test_links_hold_any_name() -> None:
    """A task's name is one segment of the path, whatever it contains."""
    html = render_html(days.terrible(), URL)
    assert 'href="https://monitor.shop.example/base/tasks/shop.%E2%80%AEdlrow%20olleh%E2%80%AC.evil"' in html
    assert 'href="https://monitor.shop.example/base/tasks/https%3A%2F%2Fevil.example%2Flogin%3Fnext' in html


def test_hostile_names_are_shown_and_do_nothing() -> None:
    """Markup is text, templates are not rendered, and names cannot start lines of the text version."""
    summary = days.terrible()
    page, text = Page(render_html(summary, URL)), render_text(summary, URL)
    for shown in (page.text, text):
        assert "<script>alert('pwned')</script><b>shop</b>" in shown
        assert "{{ 7*7 }}{% for x in y %}" in shown
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x09\x0b-\x1f]", shown)
    assert not re.search("^Bcc:", text, re.MULTILINE)


def test_nothing_that_the_day_holds_adds_an_element() -> None:
    """With markup in every text, the page has the same elements as a harmless one."""
    summary, evil = days.terrible(), "</title></td></table><script>alert(1)</script><img src=x onerror=y>"
    hostile = replace(
        summary,
        fleet=evil,
        tasks=tuple(replace(task, name=evil, exception=evil) for task in summary.tasks),
        errors=tuple(
            replace(error, task=evil, exception=evil, frame=evil, message=evil, traceback=evil, uuid=evil)
            for error in summary.errors
        ),
        incidents=replace(
            summary.incidents,
            undelivered=tuple(
                replace(late, task=evil, severity=evil, error=evil) for late in summary.incidents.undelivered
            ),
        ),
    )
    harmless = Page(render_html(days.terrible(), URL, notes=("note",)))
    assert Page(render_html(hostile, URL, notes=(evil,))).tags <= harmless.tags


def test_lost_tasks() -> None:
    """They have their own section and are in the subject; a page about one is not described as a failure."""
    evil = "</td><script>lost</script>\u202e"
    lost = tuple(LostTask(f"{number} {evil}", 7) for number in range(400))
    late = tuple(replace(one, condition="no_worker") for one in days.terrible().incidents.undelivered)
    summary = days.terrible()
    summary = replace(summary, lost=lost, incidents=replace(summary.incidents, undelivered=late))
    html, text = render_html(summary, URL), render_text(summary, URL)
    assert len(html.encode()) < MAX_BYTES
    for shown in (Page(html).text, text):
        assert "lost tasks" in shown.lower()
        assert "no worker" in shown
        assert re.search(r"and 3\d\d more tasks", shown)
        assert "\u202e" not in shown
    assert "<script>" not in html
    assert "2,800 tasks lost" in subject(summary)
    assert "lost tasks" not in render_text(days.normal(), URL).lower()


def test_a_part_of_a_page() -> None:
    """The embedded part has the same content as the mail, is no full document, and does not link to itself."""
    summary = days.normal()
    whole, part = Page(render_html(summary, URL)), Page(render_part(summary, "../"))
    assert not part.tags & {"html", "head", "body", "title", "meta"}
    assert part.open == []
    words = " ".join(part.text.split())
    for cell in ("Executed", "Failing tasks", *(task.name for task in summary.tasks)):
        assert cell in " ".join(whole.text.split())
        assert cell in words
    links = [value for _, name, value in part.attributes if name == "href"]
    assert links
    assert all(re.match(r"\.\./(tasks|failures|incidents)", link) for link in links)


def test_a_part_of_a_page_has_the_rest() -> None:
    """The site, to which a mail links, has all rows of a bad day, on linked pages."""
    summary = days.terrible()
    assert "more tasks" in Page(render_html(summary, URL)).text
    links = [f"../reports/{summary.date}?page={number}" for number in range(100)]
    names: list[str] = []
    number = pages = 1
    while number <= pages:
        part = Page(render_part(summary, "../", number))
        position = re.search(r"Page (\d+) of (\d+)", part.text)
        assert position
        assert int(position[1]) == number
        pages = int(position[2])
        hrefs = {value for _, name, value in part.attributes if name == "href" and "/reports/" in str(value)}
        wanted = {links[number + 1]} if number < pages else set()
        if number > 1:
            wanted |= {links[number - 1], f"../reports/{summary.date}"}
        assert hrefs == wanted
        assert ("more tasks" in part.text) == (len(summary.tasks) > number * PAGE_SIZE.tasks)
        of_page = summary.tasks[(number - 1) * PAGE_SIZE.tasks : number * PAGE_SIZE.tasks]
        names += [shorten(task.name) for task in of_page if shorten(task.name) in part.text]
        number += 1
    assert pages > 1
    assert names == [shorten(task.name) for task in summary.tasks]
    assert render_part(summary, "../", pages) == render_part(summary, "../", 999_999)
    assert render_part(summary, "../", 1) == render_part(summary, "../", -3)


def test_a_hostile_fleet_injects_no_header() -> None:
    """CR and LF do not reach a header."""
    summary = replace(days.normal(), fleet="shop\r\nBcc: eve@evil.example\r\n\r\n<b>\ud800\u202e🔥")
    raw, message = mail(summary)
    assert sorted(message.keys()) == sorted(mail(days.normal())[1].keys())
    assert b"\nBcc" not in raw
    assert message["Subject"].startswith("[shop��Bcc: eve@evil.example����<b>��🔥] 37 failures")


def test_the_text_reads_well_at_80_columns() -> None:
    """No line of any day is wider, except for links."""
    for name, day in days.DAYS.items():
        wide = [line for line in render_text(day(), URL).splitlines() if len(line) > 80 and "http" not in line]
        assert not wide, name


def test_both_versions_say_the_same() -> None:
    """Headline, numbers, tasks and caveats are in the text and in the HTML."""
    summary = days.terrible()
    text = " ".join(render_text(summary, URL).split())
    html = " ".join(Page(render_html(summary, URL)).text.split())
    for sentence in (
        "100,045",
        "9,020",
        "The monitor was down for 2 h 48 min of 24 h.",
        "Workers ran 48 tasks whose events never arrived",
        "5 failures arrived too late to page",
        "503 from the receiver; trying again",
        "shop.stock.task_number_1_of_a_bad_day",
        "none in the 7 days before",
    ):
        assert sentence in text
        assert sentence in html


def test_what_was_not_read_yet_is_said_in_both_versions() -> None:
    """A day whose last events are still in the broker is partial data, and the mail says how much of it."""
    summary = days.quiet()
    summary = replace(summary, health=replace(summary.health, unread=7_260.0))
    _, message = mail(summary)
    assert "(partial data)" in message["Subject"]
    for part in message.iter_parts():
        content = " ".join(part.get_content().split())
        assert "has not been read to the end of the day: the last 2 h 1 min may be incomplete." in content


def test_missed_schedules_and_silenced_failures_are_said_in_both_versions() -> None:
    """A day with a missed schedule is not quiet, even without failures."""
    missed = (MissedSchedule("<b>nightly</b>", 2, 0), MissedSchedule("sync", 0, 3))
    day = replace(days.quiet(), schedules=missed, silenced=41)
    assert not day.quiet
    assert "2 scheduled starts missed" in subject(day)
    text, html = render_text(day), render_html(day)
    assert "MISSED SCHEDULES" in text
    assert "      2  <b>nightly</b>" in text
    assert "3 starts not judged: the events of that time were lost" in text
    assert "failures, silenced     41" in text
    assert "<b>nightly" not in html
    assert "2 starts missed" in html
    assert "Silenced failures: 41." in html
    assert "MISSED" not in render_text(days.quiet())


def test_one_earlier_day_is_no_average() -> None:
    """On the second day only the previous day is compared, by name; an older single day is described as such."""
    summary = days.normal()
    assert summary.mean is not None
    second = replace(summary, mean=replace(summary.mean, days=1))
    assert "the day before" in render_text(second).lower()
    for made in (render_text(second), render_html(second)):
        assert "1 day before" not in made
        assert "Average of" not in made
    assert "Average of the only day with data in the previous week" in introduction(replace(second, before=None))


def test_a_quiet_day_is_a_short_mail() -> None:
    """The headline, the numbers, and the monitored time; no empty sections."""
    text = render_text(days.quiet())
    assert text.splitlines()[2] == "NO FAILURES"
    assert "FAILING TASKS" not in text
    assert "ERRORS" not in text
    assert re.search("ran +all of 24 h$", text, re.MULTILINE)


def test_notes_are_said_in_both_versions() -> None:
    """Refused recipients are listed for the others, up to a limit."""
    _, message = mail(days.quiet(), notes=("The server refused eve.",) * 9)
    for part in message.iter_parts():
        assert part.get_content().count("The server refused eve.") == 5
        assert "And 4 more like this." in part.get_content()


def test_a_test_mail_is_marked_and_never_the_same() -> None:
    """Its subject marks it as a test, and two of them are two mails."""
    mails = [
        message_from_bytes(trial(fleet="shop", sender="m@shop.example", recipients=PEOPLE), policy=default)
        for _ in range(2)
    ]
    assert mails[0]["Subject"] == "[shop] test of the daily report"
    assert mails[0]["Auto-Submitted"] == "auto-generated"
    assert mails[0]["Message-ID"] != mails[1]["Message-ID"]
