"""Invalid values are refused with a message that names them."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import CHART

BROKER = "secrets: {brokerUrl: {existingSecret: broker}}\n"
CASES = {
    "no broker": ("config: {fleet: shop}", "secrets.brokerUrl"),
    "unknown value": (BROKER + "replicaCount: 3", "replicaCount"),
    "replicas with SQLite": (BROKER + "replicas: 2", "replicas: 2 needs a store in PostgreSQL"),
    "replicas with a named SQLite": (
        BROKER + "replicas: 2\nconfig: {store: {url: 'sqlite:////data/monitor.db'}}",
        "replicas: 2 needs a store in PostgreSQL",
    ),
    "replicas with a secret SQLite": (
        "secrets: {brokerUrl: {existingSecret: b}, storeUrl: {value: 'sqlite:////data/monitor.db'}}\nreplicas: 3",
        "replicas: 3 needs a store in PostgreSQL",
    ),
    "replicas with SQLite in the environment": (
        BROKER + "replicas: 2\nextraEnv: [{name: CELERY_MONITOR_STORE__URL, value: 'sqlite:////d/m.db'}]",
        "replicas: 2 needs a store in PostgreSQL",
    ),
    "replicas with a volume": (
        BROKER + "replicas: 2\nconfig: {store: {url_file: /x}}\npersistence: {existingClaim: c}",
        "persistence.existingClaim is of no use with replicas: 2",
    ),
    "no replica": (BROKER + "replicas: 0", "replicas: Must be greater than or equal to 1"),
    "half a replica": (BROKER + "replicas: 1.5", "replicas"),
    "too many replicas": (BROKER + "replicas: 50", "replicas"),
    "unknown value inside": (BROKER + "image: {tagg: x}", "tagg"),
    "misspelt setting": (BROKER + "config: {fleeet: shop}", "fleeet"),
    "misspelt setting inside": (BROKER + "config: {broker: {queue: {nam: x}}}", "nam"),
    "wrong type of a setting": (BROKER + "config: {web: {port: http}}", "config.web.port"),
    "setting out of range": (BROKER + "config: {broker: {prefetch: 1}}", "config.broker.prefetch"),
    "duration without unit": (BROKER + "config: {broker: {heartbeat: 10}}", "config.broker.heartbeat"),
    "wrong choice": (BROKER + "config: {broker: {queue: {type: stream}}}", "config.broker.queue.type"),
    "misspelt field of a rule": (BROKER + "config: {alerts: {rules: [{name: a, matches: [x]}]}}", "matches"),
    "password in the configuration": ("config: {broker: {url: 'amqp://u:p@h//'}}", "secrets.brokerUrl"),
    "odd password in the configuration": (
        "config: {broker: {url: 'amqp://u:p/w@x@h'}}",
        "secrets.brokerUrl",
    ),
    "password without user": ("config: {broker: {url: 'redis://:p@h/0'}}", "secrets.brokerUrl"),
    "password of the second broker": (
        "config: {broker: {url: 'amqp://h//;amqp://u:p@h//'}}",
        "brokerUrl",
    ),
    "password of the store in the configuration": (
        BROKER + "config: {store: {url: 'postgresql://u:p/w@x@h/d'}}",
        "secrets.storeUrl or secrets.storePassword",
    ),
    "routing key in the configuration": (
        BROKER + "config: {pagerduty: {routing_key: 0123456789abcdef0123456789abcdef}}",
        "secrets.pagerdutyRoutingKey",
    ),
    "routing key of a rule": (
        BROKER + "config: {alerts: {rules: [{name: billing, routing_key: '0123'}]}}",
        "alerts.rules[billing].routing_key",
    ),
    "mail password in the configuration": (
        BROKER + "config: {email: {username: u, password: p}}",
        "secrets.emailPassword",
    ),
    "page password in the configuration": (
        BROKER + "config: {web: {username: u, password: p}}",
        "secrets.webPassword",
    ),
    "client secret in the configuration": (
        BROKER + "config: {web: {oidc: {issuer: 'https://a', client_id: c, client_secret: s}}}",
        "secrets.oidcClientSecret",
    ),
    "session key in the configuration": (
        BROKER + "config: {web: {session_key: 0123456789abcdef0123456789abcdef}}",
        "secrets.sessionKey",
    ),
    "page password without user": (
        "secrets: {brokerUrl: {existingSecret: b}, webPassword: {value: p}}",
        "config.web.username",
    ),
    "runbook without an address": (
        BROKER + "prometheusRule: {runbookUrl: docs/runbook.md}",
        "prometheusRule.runbookUrl",
    ),
    "proxy with a password": (BROKER + "proxy: {https: 'http://u:p@proxy:3128'}", "proxy.https"),
    "proxy without a port": (BROKER + "proxy: {https: 'http://proxy'}", "proxy.https"),
    "path without a slash": (BROKER + "ingress: {hosts: [{host: a, paths: [{path: x}]}]}", "path"),
    "unknown kind of path": (BROKER + "ingress: {hosts: [{host: a, paths: [{path: /, pathType: X}]}]}", "pathType"),
    "unknown family": (BROKER + "service: {ipFamilyPolicy: Both}", "ipFamilyPolicy"),
    "name in EHLO": (BROKER + "config: {email: {helo: a.example}}", "helo"),
    "secret given twice": (
        "secrets: {brokerUrl: {value: 'amqp://h//', existingSecret: b}}",
        "secrets.brokerUrl",
    ),
    "digest cut short": (BROKER + "image: {digest: 'sha256:abc'}", "image.digest"),
    "open ingress": (BROKER + "ingress: {enabled: true, hosts: [{host: a.example.com}]}", "webPassword"),
    "no host": (
        BROKER + "ingress: {enabled: true, allowUnauthenticated: true}",
        "ingress.hosts",
    ),
    "path of an ingress": (BROKER + "ingress: {hosts: [{host: a, path: /b}]}", "path"),
    "shared volume": (BROKER + "persistence: {accessModes: [ReadWriteMany]}", "persistence.accessModes"),
    "size of a claim": (BROKER + "persistence: {size: 2 GB}", "persistence.size"),
    "port of the service": (BROKER + "service: {port: 99999}", "service.port"),
    "too little time to stop": (BROKER + "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds"),
    "secret of a channel in the configuration": (
        BROKER + "config: {channels: [{name: a, type: slack, webhook_url: 'https://hooks.slack.com/services/T/B/x'}]}",
        "secrets.channels.a with field: webhook_url",
    ),
    "url of a service in the configuration": (
        BROKER + "config: {channels: [{name: a, type: apprise, url: 'tgram://token/chat'}]}",
        "secrets.channels.a with field: url",
    ),
    "secret of an unknown channel": (
        (
            "secrets: {brokerUrl: {existingSecret: b}, channels: {slak: {field: bot_token, value: x}}}\n"
            "config: {channels: [{name: slack-a, type: slack, channel: C0123456789}]}"
        ),
        "secrets.channels.slak: config.channels has no channel of this name",
    ),
    "secret of a channel given twice": (
        (
            "secrets: {brokerUrl: {existingSecret: b}, channels: {a: {field: secret, value: x, existingSecret: y}}}\n"
            "config: {channels: [{name: a, type: webhook, url: 'https://a.example'}]}"
        ),
        "secrets.channels.a",
    ),
    "secret of a channel without its field": (
        (
            "secrets: {brokerUrl: {existingSecret: b}, channels: {a: {value: x}}}\n"
            "config: {channels: [{name: a, type: webhook, url: 'https://a.example'}]}"
        ),
        "secrets.channels.a",
    ),
    "extra secret without key": (
        "secrets: {brokerUrl: {existingSecret: b}, extra: [{file: f, existingSecret: s}]}",
        "secrets.extra.0",
    ),
}


@pytest.mark.parametrize(("values", "named"), CASES.values(), ids=CASES)
def test_wrong_values_are_refused(helm: str, tmp_path: Path, values: str, named: str) -> None:
    """Helm refuses the values, and its message names the problem."""
    file = tmp_path / "values.yaml"
    file.write_text(values)
    assert yaml.safe_load(values)
    command = [helm, "template", "watch", str(CHART), "--values", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0, "the values were accepted"
    assert named in done.stderr
