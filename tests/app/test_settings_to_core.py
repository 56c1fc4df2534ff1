"""The settings that reach the core, and the secrets that the log hides."""

from pathlib import Path

from celery_monitor.core.model import Severity
from celery_monitor.core.text import REDACTED, redacted
from celery_monitor.policy import limits_of, policy_of, secrets_of
from celery_monitor.settings import load

KEY = "0123456789abcdef0123456789abcdef"


def test_a_rule_with_a_key_of_its_own_is_a_route() -> None:
    """It sends even without a default key; other incidents are stored and shown."""
    rules = [
        {"name": "billing", "match": ["b.*"], "severity": "critical", "routing_key": KEY, "threshold": 3},
        {"name": "mail", "match": ["m.*"], "page": False},
    ]
    policy = policy_of(load(None, {"alerts.rules": rules, "alerts.timezone": "Asia/Kolkata"}, {}))
    billing, mail = policy.rules
    assert (billing.route, billing.to, billing.severity, billing.threshold) == (
        "billing",
        ("pagerduty",),
        Severity.CRITICAL,
        3,
    )
    assert (mail.route, mail.to, mail.page) == ("", (), False)
    assert policy.default.to == ()
    assert str(policy.zone) == "Asia/Kolkata"


def test_all_channels_are_known() -> None:
    """Also those that no rule names, for the incidents that were opened on them before."""
    chat = {"name": "chat", "type": "slack", "webhook_url": "https://hooks.slack.com/services/T/B/X"}
    rules = [{"name": "billing", "match": ["b.*"], "routing_key": KEY}]
    policy = policy_of(load(None, {"channels": [chat], "alerts.rules": rules}, {}))
    assert policy.channels == {"pagerduty": {"billing"}, "chat": {""}}


def test_the_default_key_sends_everything() -> None:
    """Rules without a key use it."""
    overrides = {"pagerduty.routing_key": KEY, "alerts.rules": [{"name": "x", "match": ["x.*"]}]}
    policy = policy_of(load(None, overrides, {}))
    assert policy.default.to == ("pagerduty",)
    assert policy.rules[0].to == ("pagerduty",)


def test_limits() -> None:
    """Every limit of the settings reaches the core."""
    overrides = {
        "broker.prefetch": 500,
        "tracking.max_tasks": 10,
        "tracking.redact": ["tok-[0-9]+"],
        "metrics.runtime_buckets": [1.0, 2.0],
        "metrics.hostname_label": True,
        "metrics.worker_purge": "20m",
        "metrics.max_series": 11,
        "metrics.max_workers": 12,
        "tracking.max_error_groups": 13,
        "tracking.max_ended_tasks": 17,
        "tracking.max_sample_bytes": "14MiB",
        "tracking.max_argument_bytes": "15MiB",
        "alerts.max_incidents": 16,
    }
    limits = limits_of(load(None, overrides, {}))
    assert (limits.prefetch, limits.max_tasks, limits.hostname_label) == (500, 10, True)
    assert (limits.runtime_bounds, limits.worker_purge) == ((1.0, 2.0), 1200.0)
    assert (limits.max_series, limits.max_workers, limits.max_error_groups) == (11, 12, 13)
    assert limits.max_ended_tasks == 17
    assert (limits.max_sample_bytes, limits.max_argument_bytes, limits.max_incidents) == (14 << 20, 15 << 20, 16)
    assert redacted("tok-12", limits.redact) == REDACTED


def test_secrets_of_all_sections(tmp_path: Path) -> None:
    """Including the password in a URL, encoded and decoded, and a file that changes."""
    key = tmp_path / "key"
    key.write_text(KEY)
    overrides = {
        "broker.url": "amqp://user:p%40ss-word@host//;amqp://user:second-one@host//",
        "pagerduty.routing_key_file": str(key),
        "email.username": "me",
        "email.password": "mail-secret",
        "web.username": "me",
        "web.password": "web-secret",
    }
    secrets = secrets_of(load(None, overrides, {}))
    assert {"p%40ss-word", "p@ss-word", "second-one", KEY, "mail-secret", "web-secret"} <= set(secrets())
    key.write_text(KEY[::-1])
    assert KEY[::-1] in set(secrets())
