"""No text about the configuration contains a secret, nor a value that might be one in the wrong place."""

import base64
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.cli import main
from celery_monitor.errors import ConfigError
from celery_monitor.settings import load
from celery_monitor.settings.layers import variable
from celery_monitor.settings.schema import fields

MARK = "hunter2"
SIGNING_SECRET = f"whsec_{base64.b64encode(MARK.encode().ljust(32)).decode()}"
KEY = f"{MARK}{'k' * 25}"
FIELDS = [path for path, _ in fields()]


def assert_no_mark(exc: BaseException) -> None:
    """Neither the text, nor the traceback as a log would print it, nor any cause contains the mark."""
    assert MARK not in "".join(traceback.format_exception(exc))
    while exc is not None:
        assert MARK not in str(exc)
        assert MARK not in repr(exc)
        exc = exc.__cause__ or exc.__context__  # type: ignore[assignment]


scalars = st.builds("{}{}{}".format, st.text(max_size=5), st.just(MARK), st.text(max_size=5)) | st.sampled_from([
    MARK, KEY, f"sqs://{MARK}:{MARK}@", f"amqp://u:{MARK}/x@h:{MARK}/", f"amqp://u:{MARK}@[h", f"//{MARK}", f"({MARK}",
    f"(?P<{MARK}>a)(?P<{MARK}>b)", f"(?P={MARK})", f"{{{MARK}}}", f"{{{MARK}", f"https://u:{MARK}@h", f"https://h:{MARK}",
    f"postgresql://u:{MARK}@h/d", f"{MARK} * * * *", f"../{MARK}", f"[{MARK}", f'["{MARK}"]', f'{{"a": "{MARK}"}}',
    f'[{{"name": "a", "severity": "{MARK}", "routing_key": "{MARK}"}}]', f'[{{"name": "{MARK}" "match"', f"9s{MARK}",
])  # fmt: skip
values = st.recursive(
    scalars,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "match", "severity", "routing_key", "password", "x"]), children, max_size=3
        )
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([variable(path) for path in FIELDS]), scalars, min_size=1, max_size=4))
def test_no_variable_reaches_an_error(environ: dict[str, str]) -> None:
    """No error repeats a value of the variables."""
    # The name of a missing file has to be told.
    environ = {name: text for name, text in environ.items() if not name.endswith("_FILE")}
    try:
        load(environ=environ)
    except ConfigError as exc:
        assert_no_mark(exc)


@given(st.sampled_from([path for path in FIELDS if not path[-1].endswith("_file")]), values)
def test_no_value_of_the_file_reaches_an_error(path: tuple[str, ...], value: object) -> None:
    """No error repeats a value of the file."""
    try:
        load(overrides={".".join(path): value}, environ={})
    except ConfigError as exc:
        assert_no_mark(exc)


@pytest.mark.parametrize(
    "text",
    [
        f"password: {value}"
        for value in [
            f"*{MARK}", f"&{MARK} &{MARK} x", f"!{MARK} x", f"!!{MARK} x", f"!<{MARK}> x", f"'{MARK}", f'"{MARK}',
            f"%{MARK}", f"@{MARK}", f"`{MARK}", f"{MARK}: {MARK}: x", f"{{{MARK}", f"[{MARK}", f"]{MARK}",
            f'"\\q{MARK}"', f"|{MARK}", f">{MARK}", f"*{MARK}'x", f"!{MARK}'\"x y", f"!!int {MARK}",
            f"!!timestamp {MARK}", f"!!bool {MARK}", f"!!float {MARK}", f"!!binary {MARK}", f"{{? [{MARK}] : x}}",
            f"{{? {{{MARK}: x}} : x}}", f"{MARK}\n  {MARK}\x00",
        ]
    ]
    + [
        f"web: {MARK}", f"- {MARK}", MARK, f"web:\n  password: {MARK}\n  password: {MARK}",
        f"web: {{pasword: {MARK}}}", f"%TAG ! {MARK}\n---\nx", f"%YAML {MARK}\n---\nx",
    ],
)  # fmt: skip
def test_no_broken_yaml_reaches_an_error(tmp_path: Path, text: str) -> None:
    """No YAML error repeats a value, as with an unquoted password."""
    file = tmp_path / "monitor.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert_no_mark(caught.value)


def test_no_content_of_a_secret_file_reaches_an_error(tmp_path: Path) -> None:
    """A secret file with wrong content is named without its content."""
    secret = tmp_path / "secret"
    for content in (MARK.encode(), f"sqs://{MARK}".encode(), f"amqp://u:{MARK}/@h:x".encode(), MARK.encode() + b"\xff"):
        secret.write_bytes(content)
        for field in ("broker.url_file", "pagerduty.routing_key_file"):
            with pytest.raises(ConfigError) as caught:
                load(overrides={field: str(secret)}, environ={})
            assert_no_mark(caught.value)


def everywhere() -> dict[str, Any]:
    """A valid configuration with a marked value for every secret."""
    return {
        "broker": {
            "url": f"sentinel://u:{MARK}@h:1?password={MARK}",
            "transport_options": {"sentinel_kwargs": {"password": MARK}, "url": f"redis://:{MARK}@h"},
            "use_ssl": {"keyfile_password": MARK},
        },
        "web": {"username": "u", "password": MARK},
        "pagerduty": {"routing_key": KEY},
        "alerts": {"rules": [{"name": "a", "routing_key": KEY}]},
        "email": {"username": "u", "password": MARK},
        "channels": [
            {"name": "hook", "type": "webhook", "url": f"https://h/{MARK}/x?y={MARK}", "secret": SIGNING_SECRET},
            {"name": "slack", "type": "slack", "webhook_url": f"https://h/services/{MARK}"},
            {"name": "apprise", "type": "apprise", "url": f"tgram://{MARK}/1"},
            {"name": "am", "type": "alertmanager", "urls": ["http://h"], "username": "u", "password": MARK},
        ],
    }


def test_settings_show_no_secret(tmp_path: Path) -> None:
    """Settings with all secrets show none in repr, str, format and JSON."""
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump(everywhere()))
    settings = load(file, environ={})
    assert settings.pagerduty.routing_key_source().get() == KEY
    dumped = json.dumps(settings.model_dump(mode="json", by_alias=True))
    for text in (repr(settings), str(settings), f"{settings}", settings.model_dump_json(), dumped):
        assert MARK not in text
    assert MARK not in repr(settings.model_dump(exclude={"broker": {"transport_options", "use_ssl"}}))


@pytest.mark.parametrize("command", [["check"], ["show"], ["show", "--format", "json"], ["schema"], ["reference"]])
@pytest.mark.parametrize("from_files", [False, True])
def test_commands_show_no_secret(tmp_path: Path, command: list[str], *, from_files: bool) -> None:
    """No config command prints a secret, whether from the configuration or from a separate file."""
    values = everywhere()
    if from_files:
        for section, name in [
            ("broker", "url"),
            ("web", "password"),
            ("pagerduty", "routing_key"),
            ("email", "password"),
        ]:
            secret = tmp_path / f"{section}.{name}"
            secret.write_text(values[section].pop(name))
            values[section][f"{name}_file"] = str(secret)
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(main, ["config", *command], env={"CELERY_MONITOR_CONFIG": str(file)})
    assert result.exit_code == 0
    assert result.output
    assert MARK not in result.output
