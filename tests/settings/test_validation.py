"""Validation of each field and its errors."""

from pathlib import Path

import pytest
import yaml

from celery_monitor.errors import ConfigError
from celery_monitor.settings import Settings, load

KEY = "0123456789abcdef0123456789abcdef"

MUTE = [
    ("cron: '0 2 * * *', lasting: 2h, reason: r", "match", "is required"),
    ("match: [], cron: '0 2 * * *', lasting: 2h, reason: r", "match", "at least 1"),
    ("match: [x], cron: '0 2 * * *', lasting: 2h", "reason", "is required"),
    ("match: [x], cron: '0 2 * * *', reason: r", "lasting", "is required"),
    ("match: [x], cron: '0 2 * *', lasting: 2h, reason: r", "cron", "five fields"),
    ("match: [x], cron: '0 2 30 2 *', lasting: 2h, reason: r", "cron", "bad day-of-month"),
    ("match: [x], cron: '0 2 * * *', lasting: 24h, reason: r", "lasting", "would never end"),
    ("match: [x], cron: '* * * * *', lasting: 1m, reason: r", "lasting", "would never end"),
    ("match: [x], cron: '0 2 * * *', lasting: 8d, reason: r", "lasting", "from 1m to 7d"),
    ("match: [x], cron: '0 2 * * *', lasting: 2h, reason: r, timezone: Berlin", "timezone", "not an IANA time zone"),
    ("match: [x], cron: '0 2 * * *', lasting: 2h, reason: r, until: x", "until", "unknown key"),
]

SCHEDULES = [
    ("cron: '0 3 * * *'", "task", "is required"),
    ("task: a", "cron", "set either cron or every"),
    ("task: a, cron: '0 3 * * *', every: 5m", "cron", "set either cron or every"),
    ("task: a, cron: '0 3 * *'", "cron", "five fields"),
    ("task: a, cron: '0 3 1 * 1'", "cron", "has both a day and a weekday"),
    ("task: a, cron: '0 3 * * *', timezone: Berlin", "timezone", "not an IANA time zone"),
    ("task: a, every: 5m, timezone: UTC", "timezone", "cannot be used with every"),
    ("task: a, every: 0", "every", "from 1s to 366d"),
    ("task: a, every: 5", "every", "has no unit"),
    ("task: a, cron: '*/5 * * * *', grace: 5m", "grace", "must be shorter than the time from one start to the next"),
    ("task: a, cron: '0 3 * * *', grace: 0", "grace", "from 1s to 7d"),
    ("task: a, every: 5m, max_runtime: 0", "max_runtime", "from 1s to 30d"),
    ("task: a, every: 5m, to: [nobody]", "to[0]", "schedule a: is not the name of a channel"),
    ("task: a, every: 5m, args: [1]", "args", "unknown key"),
    ("task: 'shop.*', every: 5m", "task", "must be the full name of one task"),
    ("task: a, cron: '@daily'", "cron", "five fields"),
    ("task: a, cron: '0 25 * * *'", "cron", "bad hour (minute hour day month weekday)"),
]

CONDITIONS = [
    ("on: slow", "on", "must be 'failure', 'runtime', 'waiting', 'lost', 'backlog' or 'no_worker'"),
    ("on: missed", "on", "add the task to schedules"),
    ("on: runtime", "longer_than", "is required with on: runtime"),
    ("on: waiting", "longer_than", "is required with on: waiting"),
    ("on: backlog", "more_than", "is required with on: backlog"),
    ("on: runtime, longer_than: 10", "longer_than", "has no unit; write 500ms, 30s"),
    ("on: runtime, longer_than: 0", "longer_than", "must be from 1s to 365d"),
    ("on: runtime, longerthan: 10m", "longerthan", "did you mean `longer_than`?"),
    ("on: runtime, longer_than: 1m, more_than: 5", "more_than", "cannot be used with on: runtime, only with backlog"),
    ("on: runtime, longer_than: 1m, exceptions: [E]", "exceptions", "cannot be used with on: runtime"),
    ("on: waiting, longer_than: 1m, lasting: 5m", "lasting", "only with backlog, no_worker; remove it"),
    ("on: backlog, more_than: -1", "more_than", "must be at least 0"),
    ("on: backlog, more_than: 5k", "more_than", "must be a whole number"),
    ("on: backlog, more_than: 5, match: [a]", "match", "cannot be used with on: backlog"),
    ("on: backlog, more_than: 5, lasting: 8d", "lasting", "must be from 0s to 7d"),
    ("on: no_worker, fewer_than: 0", "fewer_than", "must be at least 1"),
    ("on: lost, longer_than: 1m", "longer_than", "cannot be used with on: lost, only with runtime, waiting"),
    ("on: lost, threshold: 3", "threshold", "cannot be used with on: lost, only with failure"),
    ("on: lost, resolve_after: 5m", "resolve_after", "cannot be used with on: lost"),
    ("on: lost, silent_for: 1s", "silent_for", "must be from 10s to 1d"),
    ("on: lost, finishing_for: 90", "finishing_for", "has no unit"),
    ("finishing_for: 90s", "finishing_for", "cannot be used with on: failure, only with lost"),
    ("on: lost, to: [slack]", "to[0]", "rule a: is not the name of a channel; known: pagerduty"),
    ("on: lost, to: pagerduty", "to", "must be a list"),
    ("condition: lost", "condition", "unknown key; known keys: name, on, longer_than"),
]

TOGETHER = ", ".join(f"{{match: [x], cron: '0 {hour} * * *', lasting: 12h, reason: r}}" for hour in (0, 12))
CHANNELS = [
    ("type: email, to: [a@b.example]", "name", "is required"),
    ("name: A b, type: email, to: [a@b.example]", "name", "must be 1 to 63 lower-case letters, digits, - or _"),
    ("name: a", "type", "is required; known: pagerduty, email, webhook"),
    ("name: a, type: teams", "type", "is not a channel type; known: pagerduty, email, webhook"),
    ("name: a, type: slack", "webhook_url", "is required, here or by webhook_url_file; or set bot_token and channel"),
    ("name: a, type: slack, bot_token: xoxb-1, channel: '#ops'", "channel", "must be the ID of a channel"),
    ("name: a, type: alertmanager, urls: []", "urls", "must list at least 1"),
    ("name: a, type: email", "to", "is required"),
]

REFUSED = [
    ("schedules: [{task: a, every: 5m}, {task: a, every: 1h}]", "schedules", "set name for the schedules of a"),
    ("schedules: [{task: scheduler, every: 5m}]", "schedules", "give this one another name"),
    *((f"schedules: [{{{entry}}}]", f"schedules[0].{field}", told) for entry, field, told in SCHEDULES),
    *(
        (f"alerts: {{rules: [{{name: a, {one}}}]}}", f"alerts.rules[0].{field}", told)
        for one, field, told in CONDITIONS
    ),
    *((f"channels: [{{{entry}}}]", f"channels[0].{field}", told) for entry, field, told in CHANNELS),
    (f"alerts: {{mute: [{TOGETHER}]}}", "alerts.mute", "mute[0], mute[1] together cover all the time"),
    ("alerts: {schedules: []}", "alerts.schedules", "belongs at the top level"),
    ("mute: []", "mute", "did you mean `alerts.mute`?"),
    ("schedules: {task: a}", "schedules", "must be a list"),
    ("channels: {a: {type: slack}}", "channels", "must be a list"),
    *((f"alerts: {{mute: [{{{entry}}}]}}", f"alerts.mute[0].{field}", told) for entry, field, told in MUTE),
    ("fleet: ''", "fleet", "must not be empty"),
    ("fleet: ' '", "fleet", "must not be empty"),
    ("fleet: no", "fleet", "must be a string; put it in quotes"),
    ("web: {host: }", "web.host", "has no value; write one, or remove the line"),
    ("web: {port: }", "web.port", "has no value; write one, or remove the line"),
    ("email: {to: }", "email.to", "has no value; write one, or remove the line"),
    ('fleet: "a\\nb"', "fleet", "must not contain control characters"),
    ("broker: {url: sqs://}", "broker.url", "carries no task events"),
    ("broker: {url: 'kafka://h'}", "broker.url", "carries no task events"),
    ("broker: {url: 'zookeeper://h'}", "broker.url", "carries no task events"),
    ("broker: {url: 'sqla+sqlite:///x'}", "broker.url", "carries no task events"),
    ("broker: {url: 'filesystem://'}", "broker.url", "carries no task events"),
    ("broker: {url: 'http://h'}", "broker.url", "must begin with one of amqp, amqps"),
    ("broker: {url: localhost}", "broker.url", "must begin with one of amqp, amqps"),
    ("broker: {url: 'amqp://u:p/w@h:5672//'}", "broker.url", "percent-encoded"),
    ("broker: {url: 'amqp://a;sqs://'}", "broker.url", "carries no task events"),
    ("broker: {url: 'redis://h/abc'}", "broker.url", "must end with a database number"),
    ("broker: {url: 'rediss://h:6379/-1'}", "broker.url", "must end with a database number"),
    ("broker: {url: 'sentinel://a:26379;b:26379/db0'}", "broker.url", "must end with a database number"),
    ("broker: {url: 'amqp://h:5672// '}", "broker.url", "must not begin or end with a space"),
    ("broker: {url: ' redis://h/0'}", "broker.url", "must not begin or end with a space"),
    ("broker: {url: 'sentinel://a:26379; b:26379'}", "broker.url", "must not begin or end with a space"),
    ("broker: {use_ssl: 5}", "broker.use_ssl", "must be true, false or a mapping"),
    ("broker: {transport_options: 5}", "broker.transport_options", "must be a mapping"),
    ("broker: {prefetch: 99}", "broker.prefetch", "must be from 100 to 65535"),
    ("broker: {prefetch: 65536}", "broker.prefetch", "must be from 100 to 65535"),
    ("broker: {prefetch: many}", "broker.prefetch", "must be a whole number"),
    ("broker: {prefetch: yes}", "broker.prefetch", "must be a whole number"),
    ("broker: {heartbeat: 10}", "broker.heartbeat", "has no unit; write 500ms, 30s"),
    ("broker: {heartbeat: 0}", "broker.heartbeat", "must be from 1s to 10m"),
    ("broker: {enable_events: maybe}", "broker.enable_events", "must be true or false"),
    ("broker: {queue: {type: stream}}", "broker.queue.type", "must be 'classic' or 'quorum'"),
    ("broker: {queue: {name: amq.x}}", "broker.queue.name", "must not begin with amq."),
    ("broker: {queue: {type: quorum, durable: false}}", "broker.queue.durable", "must be true with type quorum"),
    ("broker: {queue: {max_bytes: 5MB}}", "broker.queue.max_bytes", "64KiB, 256MiB"),
    ("broker: {queue: {nam: x}}", "broker.queue.nam", "did you mean `name`?"),
    ("store: {url: 'mysql://u:p@h/d'}", "store.url", "must be a SQLite file"),
    ("store: {url: 'postgresql://u@h/d '}", "store.url", "must not begin or end with a space"),
    ("store: {url: 'postgresql://u:p@h'}", "store.url", "must name the database"),
    ("store: {url: 'postgresql://u:p@h/?sslmode=require'}", "store.url", "must name the database"),
    ("store: {url: 'postgresql:u@h/d'}", "store.url", "must be a SQLite file"),
    ("store: {url: 'sqlite://'}", "store.url", "must be a SQLite file"),
    ("store: {url: 'sqlite:///a.db?mode=ro'}", "store.url", "must not have parameters"),
    *(
        (f"store: {{url: 'postgresql://{hosts}/d'}}", "store.url", "has a port that is not a number from 1 to 65535")
        for hosts in ("h:abc", "h:0", "h:65536", "u:p@h:1,[::1]:x", "u:p:w/d@h:1", "h:-1", "h:٣")
    ),
    ("store: {replicas: 2}", "store.replicas", "must be 1 with a SQLite store"),
    ("store: {flush_intervall: 1s}", "store.flush_intervall", "did you mean `flush_interval`?"),
    ("broker: {retention: 1d}", "broker.retention", "did you mean `store.retention`?"),
    ("broker: {flush_interval: 1s}", "broker.flush_interval", "did you mean `store.flush_interval`?"),
    ("broker: {fleet: x}", "broker.fleet", "`fleet` belongs at the top level, not in `broker`"),
    ("broker: {queue: {fleet: x}}", "broker.queue.fleet", "`fleet` belongs at the top level, not in `broker.queue`"),
    ("metrics: {metrics: 1}", "metrics.metrics", "this is already inside `metrics`: write its fields here"),
    ("broker: {queue: {queue: {}}}", "broker.queue.queue", "this is already inside `queue`: write its fields here"),
    ("brokers: {}", "brokers", "did you mean `broker`?"),
    ("tracking: {redact: ['(']}", "tracking.redact[0]", "is not a regular expression: it fails at character 1"),
    ("tracking: {redact: x}", "tracking.redact", "must be a list"),
    ("tracking: {max_tasks: 0}", "tracking.max_tasks", "must be at least 1"),
    ("metrics: {prefix: 9x}", "metrics.prefix", "must match the pattern"),
    ("metrics: {runtime_buckets: [1, 1]}", "metrics.runtime_buckets", "ascending"),
    ("metrics: {runtime_buckets: []}", "metrics.runtime_buckets", "at least one"),
    ("metrics: {runtime_buckets: [1, .inf]}", "metrics.runtime_buckets", "above 0"),
    ("metrics: {queue_wait_buckets: [0, 1]}", "metrics.queue_wait_buckets", "above 0"),
    ("metrics: {queue_wait_buckets: [a]}", "metrics.queue_wait_buckets[0]", "must be a number"),
    ("metrics: {static_labels: {a-b: x}}", "metrics.static_labels.a-b", "must match the pattern"),
    ("metrics: {static_labels: {name: x}}", "metrics.static_labels.name", "reserved for the metrics' own labels"),
    ("metrics: {static_labels: {__x: x}}", "metrics.static_labels.__x", "reserved for the metrics' own labels"),
    ("metrics: {static_labels: {a: 1}}", "metrics.static_labels.a", "must be a string"),
    ("metrics: {worker_timeout: 20m}", "metrics.worker_purge", "must not be shorter than worker_timeout"),
    ("web: {port: -1}", "web.port", "must be from 0 to 65535"),
    ("web: {port: 65536}", "web.port", "must be from 0 to 65535"),
    ("web: {host: 'http://h'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: 'h:9808'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '*'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '300.1.1.1'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '1.2.3'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '[localhost]'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '[::'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '::1]'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '[]'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: 'a b'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: '-x'}", "web.host", "must be an IP address or a host name"),
    ("web: {host: 'fe80::1::2'}", "web.host", "must be an IP address or a host name"),
    ("web: {trusted_proxies: [10.0.0.1/8]}", "web.trusted_proxies[0]", "must be an IP address or a network"),
    ("web: {trusted_proxies: [false]}", "web.trusted_proxies[0]", "must be an IP address or a network"),
    ("web: {trusted_proxies: [proxy]}", "web.trusted_proxies[0]", "must be an IP address or a network"),
    ("web: {external_url: monitor}", "web.external_url", "must be a URL like https://"),
    ("web: {external_url: 'https://h/?fleet=a'}", "web.external_url", "must not have a query"),
    ("web: {external_url: 'https://h/#a'}", "web.external_url", "must not have a query"),
    ("web: {external_url: 'https://u:p@h'}", "web.external_url", "must not contain a user name or password"),
    ("web: {password: x}", "web.username", "must be set with a password"),
    ("web: {username: x}", "web.password", "must be set with a user name"),
    ("web: {username: 'a:b', password: x}", "web.username", "must not contain a colon"),
    ("alerts: {timezone: Mars/Olympus}", "alerts.timezone", "not an IANA time zone"),
    ("alerts: {timezone: Europe}", "alerts.timezone", "not an IANA time zone"),
    ("alerts: {timezone: ../etc/passwd}", "alerts.timezone", "not an IANA time zone"),
    ("alerts: {dedup_key: '{uuid}'}", "alerts.dedup_key", "{task}, {hour}, {fleet}, {queue}, {rule}"),
    ("alerts: {dedup_key: '{task.name}'}", "alerts.dedup_key", "placeholders"),
    ("alerts: {dedup_key: '{task!r}'}", "alerts.dedup_key", "placeholders"),
    ("alerts: {dedup_key: '{task:>9}'}", "alerts.dedup_key", "placeholders"),
    ("alerts: {dedup_key: '{}'}", "alerts.dedup_key", "placeholders"),
    ("alerts: {dedup_key: '{task'}", "alerts.dedup_key", "unmatched brace"),
    ("alerts: {storm: {tasks: 0}}", "alerts.storm.tasks", "must be at least 1"),
    ("alerts: {rules: {a: b}}", "alerts.rules", "must be a list"),
    ("alerts: {rules: [x]}", "alerts.rules[0]", "must be a mapping"),
    ("alerts: {rules: [{}]}", "alerts.rules[0].name", "is required"),
    ("alerts: {rules: [{name: a, match: ['']}]}", "alerts.rules[0].match[0]", "must not be empty"),
    ("alerts: {rules: [{name: a, match: x}]}", "alerts.rules[0].match", "must be a list"),
    ("alerts: {rules: [{name: a, severity: bad}]}", "alerts.rules[0].severity", "'critical', 'error', 'warning' or"),
    ("alerts: {rules: [{name: a, treshold: 2}]}", "alerts.rules[0].treshold", "did you mean `threshold`?"),
    ("alerts: {rules: [{name: a, threshold: 0}]}", "alerts.rules[0].threshold", "must be at least 1"),
    ("alerts: {rules: [{name: a, routing_key: x}]}", "alerts.rules[0].routing_key", "must be the 32 characters"),
    ("alerts: {rules: [{name: a, routing_key_file: /no}]}", "alerts.rules[0].routing_key_file", "cannot read /no"),
    ("alerts: {rules: [{name: a}, {name: a}]}", "alerts.rules", "duplicates: a"),
    ("alerts: {rules: [{name: a, 'on': runtime}]}", "alerts.rules[0].longer_than", "is required with on: runtime"),
    ("alerts: {rules: [{name: a, 'on': backlog}]}", "alerts.rules[0].more_than", "is required with on: backlog"),
    ("alerts: {rules: [{name: a, 'on': runtime, longer_than: 5}]}", "alerts.rules[0].longer_than", "has no unit"),
    (
        "alerts: {rules: [{name: a, longer_than: 5m}]}",
        "alerts.rules[0].longer_than",
        "cannot be used with on: failure, only with runtime, waiting; remove it",
    ),
    (
        "alerts: {rules: [{name: a, 'on': no_worker, match: [x]}]}",
        "alerts.rules[0].match",
        "cannot be used with on: no_worker, only with failure, runtime, waiting, lost",
    ),
    ("alerts: {rules: [{name: a, 'on': lost, threshold: 2}]}", "alerts.rules[0].threshold", "on: lost, only with fail"),
    ("pagerduty: {routing_key: x}", "pagerduty.routing_key", "must be the 32 characters"),
    ("pagerduty: {routing_key: 5}", "pagerduty.routing_key", "must be a string"),
    ("pagerduty: {region: asia}", "pagerduty.region", "must be 'us' or 'eu'"),
    ("pagerduty: {url: 'ftp://h'}", "pagerduty.url", "must be a URL like https://"),
    ("pagerduty: {resolve: always}", "pagerduty.resolve", "must be 'never' or 'on_success'"),
    ("email: {to: [a@example.com]}", "email.from", "must be set if email.to is set"),
    ("email: {from: nobody}", "email.from", "must be a mail address"),
    ("email: {from: m@example.com, to: [x]}", "email.to[0]", "must be a mail address"),
    ('email: {from: "m@example.com\\r\\nBcc: x@example.com"}', "email.from", "control characters"),
    ("email: {security: ssl}", "email.security", "'starttls', 'tls' or 'none'"),
    ("email: {port: 0}", "email.port", "must be from 1 to 65535"),
    ("email: {schedule: '0 8 * *'}", "email.schedule", "five fields"),
    ("email: {schedule: '0 0 8 * * *'}", "email.schedule", "five fields"),
    ("email: {schedule: '0 25 * * *'}", "email.schedule", "bad hour"),
    ("email: {schedule: '0 8 31 2 *'}", "email.schedule", "bad day-of-month"),
    ("email: {timezone: ''}", "email.timezone", "not an IANA time zone"),
    ("log: {level: loud}", "log.level", "must be 'debug', 'info'"),
    ("log: {format: text}", "log.format", "must be 'json' or 'console'"),
    ("5: x", "5", "keys must be strings"),
]


@pytest.mark.parametrize(("text", "path", "message"), REFUSED, ids=[text for text, _, _ in REFUSED])
def test_refused(tmp_path: Path, text: str, path: str, message: str) -> None:
    """A wrong value is one problem at the path of its field, and says what would be valid."""
    file = tmp_path / "monitor.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert [problem.path for problem in caught.value.problems] == [path]
    assert message in caught.value.problems[0].message


ACCEPTED = [
    "alerts: {rules: [{name: a, 'on': runtime, longer_than: 10m, resolve_after: 1h, match: [x]}]}",
    "alerts: {rules: [{name: a, 'on': no_worker}, {name: b, 'on': lost}, {name: c, 'on': backlog, more_than: 0}]}",
    "broker: {url: 'amqps://u:p%40w@h/vhost'}",
    "broker: {url: 'pyamqp://h'}",
    "broker: {url: 'rediss://:p@h:6379/0'}",
    "broker: {url: 'redis://h/'}",
    "broker: {url: 'redis://h//3'}",
    "broker: {url: 'sentinel://a:26379/0;sentinel://b:26379/0', transport_options: {master_name: m}}",
    "broker: {url: 'redis+socket:///run/redis.sock'}",
    "broker: {url: 'sentinel://:p@a:26379;b:26379', transport_options: {master_name: m}}",
    "broker: {url: 'amqp://a;amqp://b'}",
    "broker: {url: memory://, use_ssl: {ca_certs: /ca}}",
    "broker: {url: memory://, use_ssl: 'FALSE'}",
    "broker: {queue: {type: quorum}}",
    "store: {url: 'sqlite:////var/lib/monitor.db'}",
    "store: {url: 'postgresql://u:p@h:5432,h2:5432/d?sslmode=verify-full'}",
    "store: {url: 'postgres:///d?host=/run/postgresql', replicas: 2}",
    "store: {url: 'postgresql://u:p%2F1@[::1]:5432,[::2],h/d'}",
    "tracking: {linger: 0, redact: ['\\d{16}']}",
    "metrics: {static_labels: {env: prod}, queues: [a, b]}",
    "web: {username: a, password: b, external_url: 'https://h/base', port: 0}",
    "web: {username: '', password: '', external_url: ''}",
    "alerts: {timezone: Asia/Kolkata, dedup_key: '{fleet}-{rule}-{queue}-{{x}}'}",
    "alerts: {rules: [{name: all}, {name: b, exceptions: ['Time*'], queues: [q], exclude: [x], page: false}]}",
    f"pagerduty: {{routing_key: {KEY!r}, region: eu, url: 'http://127.0.0.1:1'}}",
    "pagerduty: {routing_key: ''}",
    "email: {from: 'Shop <m@example.com>', to: [a@example.com], schedule: '*/5 8-18 * * MON-FRI'}",
    "log: {level: INFO}",
    "log: {level: Warning}",
    "email: {username: u, password: p, timezone: America/St_Johns}",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(tmp_path: Path, text: str) -> None:
    """Documented examples are valid."""
    file = tmp_path / "monitor.yaml"
    file.write_text(text)
    assert isinstance(load(file, environ={}), Settings)


@pytest.mark.parametrize(
    ("section", "name", "other"),
    [
        ("broker", "url", {}),
        ("pagerduty", "routing_key", {}),
        ("web", "password", {"username": "u"}),
        ("email", "password", {"username": "u"}),
    ],
)
def test_secret_and_its_file_exclude_each_other(tmp_path: Path, section: str, name: str, other: dict[str, str]) -> None:
    """A secret together with its file is one problem at the file's field; each alone is valid."""
    good = {"url": "redis://h", "routing_key": KEY, "password": "p"}[name]
    secret = tmp_path / "secret"
    secret.write_text(good + "\n")
    file = tmp_path / "monitor.yaml"
    for given in ({name: good}, {f"{name}_file": str(secret)}):
        file.write_text(yaml.safe_dump({section: {**other, **given}}))
        source = getattr(getattr(load(file, environ={}), section), f"{name}_source")()
        assert source.get() == good
    file.write_text(yaml.safe_dump({section: {**other, name: good, f"{name}_file": str(secret)}}))
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert [problem.path for problem in caught.value.problems] == [f"{section}.{name}_file"]
    assert "not both" in caught.value.problems[0].message


def test_rule_takes_a_routing_key_from_a_file(tmp_path: Path) -> None:
    """A rule's routing key may be in a file, but not in addition to an inline key."""
    secret = tmp_path / "secret"
    secret.write_text(KEY)
    file = tmp_path / "monitor.yaml"
    rule = {"name": "a", "routing_key_file": str(secret)}
    file.write_text(yaml.safe_dump({"alerts": {"rules": [rule]}}))
    assert load(file, environ={}).alerts.rules[0].routing_key_source().get() == KEY
    file.write_text(yaml.safe_dump({"alerts": {"rules": [{**rule, "routing_key": KEY}]}}))
    with pytest.raises(ConfigError, match=r"alerts\.rules\[0\]\.routing_key_file: .*not both"):
        load(file, environ={})


@pytest.mark.parametrize(
    ("section", "name", "content", "message"),
    [
        ("broker", "url_file", "sqs://", "carries no task events"),
        ("pagerduty", "routing_key_file", "short", "32 characters"),
        ("web", "password_file", "", "is empty"),
    ],
)
def test_content_of_a_secret_file_is_checked(
    tmp_path: Path, section: str, name: str, content: str, message: str
) -> None:
    """The content of a secret file must be valid at loading, and the problem names the file's field."""
    secret = tmp_path / "secret"
    secret.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(overrides={f"{section}.{name}": str(secret)}, environ={})
    assert [problem.path for problem in caught.value.problems] == [f"{section}.{name}"]
    assert message in caught.value.problems[0].message


def test_one_round_for_all(tmp_path: Path) -> None:
    """Problems between fields are reported together with problems of other fields."""
    url = tmp_path / "url"
    url.write_text("redis://h")
    file = tmp_path / "monitor.yaml"
    file.write_text(
        f"broker: {{url: 'redis://h', url_file: {url}, prefetch: 1, nonsense: 1}}\n"
        "metrics: {worker_timeout: 20m, poll_interval: 5, static_labels: {name: x, a-b: y}}\n"
        "email: {to: [a@example.com], port: 0}\n"
        "web: {username: u, port: 70000}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert {problem.path for problem in caught.value.problems} == {
        "broker.url_file", "broker.prefetch", "broker.nonsense", "metrics.worker_purge", "metrics.poll_interval",
        "metrics.static_labels.name", "metrics.static_labels.a-b", "email.from", "email.port", "web.password",
        "web.port",
    }  # fmt: skip


def test_the_examples_of_conditions(tmp_path: Path) -> None:
    """The example in docs/conditions.md is valid and has each condition of a rule."""
    text = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text()
    file = tmp_path / "config.yaml"
    file.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    rules = load(file, environ={}).alerts.rules
    assert {rule.on for rule in rules} == {"runtime", "waiting", "lost", "backlog", "no_worker"}


@pytest.mark.parametrize("key", ["on", "'on'", '"on"', "'true'"])
def test_on_is_a_key(key: str, tmp_path: Path) -> None:
    """YAML 1.1 reads ``on`` as true: as a key, both the text and Helm's version of it are accepted."""
    file = tmp_path / "config.yaml"
    file.write_text(f"alerts:\n  rules:\n    - name: a\n      {key}: lost\n")
    assert load(file, environ={}).alerts.rules[0].on == "lost"


def test_levels_are_those_of_the_log() -> None:
    """Any spelling of a level gives the log's level."""
    assert load(overrides={"log.level": "WARNING"}, environ={}).log.level == "warning"


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("'::'", "::"),
        ("'[::]'", "::"),
        ("'::1'", "::1"),
        ("'[::1]'", "::1"),
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "localhost"),
        ("monitor_1.example.com.", "monitor_1.example.com."),
        ("'fe80::1%eth0'", "fe80::1%eth0"),
    ],
)
def test_hosts_to_listen_on(written: str, host: str, tmp_path: Path) -> None:
    """Addresses of both families, with or without brackets, and names."""
    file = tmp_path / "config.yaml"
    file.write_text(f"web: {{host: {written}, trusted_proxies: [10.0.0.0/8, '::1']}}")
    assert load(file, environ={}).web.host == host
