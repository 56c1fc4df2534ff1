"""Loading of arguments, environment and file into Settings."""

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.errors import ConfigError, Problem
from celery_monitor.settings import RuleSettings, Settings, load, yaml_file
from celery_monitor.settings.layers import variable
from celery_monitor.settings.schema import fields
from celery_monitor.settings.secret import Secret

KEY = "0123456789abcdef0123456789abcdef"


def write(tmp_path: Path, text: str) -> Path:
    """A configuration file with this text."""
    file = tmp_path / "monitor.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(overrides: dict[str, object], environ: dict[str, str]) -> list[Problem] | None:
    """The problems, or None if it loads."""
    try:
        load(overrides=overrides, environ=environ)
    except ConfigError as exc:
        return exc.problems
    return None


def faults(path: Path | None = None, environ: dict[str, str] | None = None) -> dict[str, str]:
    """The problems by path."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ or {})
    return {problem.path: problem.message for problem in caught.value.problems}


def test_nothing_given_is_the_defaults() -> None:
    """Without a file and variables, the configuration has the defaults and is valid."""
    assert load(environ={}) == Settings()


def test_precedence(tmp_path: Path) -> None:
    """Arguments override the environment, which overrides the file, which overrides the defaults, for each field."""
    file = write(tmp_path, "web: {port: 1, host: file, external_url: 'https://file'}\nlog: {level: error}")
    settings = load(
        file,
        overrides={"web.port": 3, "store.url": None},
        environ={"CELERY_MONITOR_WEB__PORT": "2", "CELERY_MONITOR_WEB__HOST": "variable"},
    )
    assert (settings.web.port, settings.web.host) == (3, "variable")
    assert (settings.web.external_url, settings.log.level) == ("https://file", "error")
    assert settings.store.url_source().get() == "sqlite:///celery-monitor.db"


def test_mappings_are_merged(tmp_path: Path) -> None:
    """Keys of a mapping in two sources are merged; lists are replaced as a whole."""
    file = write(tmp_path, "broker: {transport_options: {a: {x: 1, y: 1}, b: 1}}\nemail: {to: [a@example.com]}")
    settings = load(
        file,
        environ={
            "CELERY_MONITOR_BROKER__TRANSPORT_OPTIONS": '{"a": {"y": 2}, "b": {"z": 2}}',
            "CELERY_MONITOR_EMAIL__TO": "b@example.com",
            "CELERY_MONITOR_EMAIL__FROM": "m@example.com",
        },
    )
    assert settings.broker.transport_options == {"a": {"x": 1, "y": 2}, "b": {"z": 2}}
    assert settings.email.to == ("b@example.com",)


def test_file_from_the_environment(tmp_path: Path) -> None:
    """CELERY_MONITOR_CONFIG names the file; an explicit path overrides it."""
    file = write(tmp_path, "fleet: shop")
    assert load(environ={"CELERY_MONITOR_CONFIG": str(file)}).fleet == "shop"
    assert list(faults(tmp_path / "no.yaml", {"CELERY_MONITOR_CONFIG": str(file)})) == [str(tmp_path / "no.yaml")]


def test_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an explicit environment, that of the process is used."""
    monkeypatch.setenv("CELERY_MONITOR_FLEET", "shop")
    assert load().fleet == "shop"


def test_settings_are_frozen() -> None:
    """No field of any section can be changed."""
    settings = load(environ={})
    with pytest.raises(ValueError, match="frozen"):
        settings.fleet = "x"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        settings.broker.prefetch = 1  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "# nothing", "broker:", "broker:\nstore: {}", "---\n"])
def test_empty_sections_are_the_defaults(tmp_path: Path, text: str) -> None:
    """An empty file and empty sections are equivalent to missing ones."""
    assert load(write(tmp_path, text), environ={}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        (
            "ALERTS__RULES",
            '[{"name": "a", "match": ["x.*"]}]',
            "alerts.rules",
            (RuleSettings(name="a", match=("x.*",)),),
        ),
        ("EMAIL__TO", "a@example.com, b@example.com", "email.to", ("a@example.com", "b@example.com")),
        ("EMAIL__TO", '["a@example.com"]', "email.to", ("a@example.com",)),
        ("EMAIL__TO", "[]", "email.to", ()),
        ("METRICS__RUNTIME_BUCKETS", "0.1,1,10", "metrics.runtime_buckets", (0.1, 1.0, 10.0)),
        ("METRICS__STATIC_LABELS", '{"env": "prod"}', "metrics.static_labels", {"env": "prod"}),
        ("BROKER__TRANSPORT_OPTIONS", '{"a": {"b": 1}}', "broker.transport_options", {"a": {"b": 1}}),
        ("BROKER__USE_SSL", "true", "broker.use_ssl", True),
        ("BROKER__USE_SSL", "False", "broker.use_ssl", False),
        ("BROKER__USE_SSL", "null", "broker.use_ssl", None),
        ("BROKER__USE_SSL", '{"ca_certs": "/ca"}', "broker.use_ssl", {"ca_certs": "/ca"}),
        ("BROKER__HEARTBEAT", "20s", "broker.heartbeat", 20.0),
        ("BROKER__QUEUE__MAX_BYTES", "1GiB", "broker.queue.max_bytes", 2**30),
        ("BROKER__QUEUE__DURABLE", "false", "broker.queue.durable", False),
        ("EMAIL__FROM", "m@example.com", "email.from_", "m@example.com"),
        ("WEB__PORT", "0", "web.port", 0),
        ("WEB__PORT", "9\r\n", "web.port", 9),
        ("WEB__EXTERNAL_URL", "\n", "web.external_url", None),
        ("PAGERDUTY__ROUTING_KEY", f"{KEY}\n", "pagerduty.routing_key", Secret(KEY)),
        ("WEB__EXTERNAL_URL", "", "web.external_url", None),
        ("FLEET", "", "fleet", "celery"),
        ("FLEET", "null", "fleet", "null"),
    ],
)
def test_variable_is_read(name: str, text: str, path: str, value: object) -> None:
    """Variables contain texts, numbers, JSON and comma-separated lists; an empty one counts as unset."""
    environ = {f"CELERY_MONITOR_{name}": text, "CELERY_MONITOR_EMAIL__FROM": "m@example.com"}
    found: object = load(environ=environ)
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("path", [path for path, _ in fields()], ids=".".join)
def test_every_field_has_a_variable(path: tuple[str, ...]) -> None:
    """Each field can be set by its variable: it changes the field, or its value is refused."""
    name = variable(path)
    refused = problems({}, {name: "{"})
    if refused:
        assert not any("unknown" in problem.message for problem in refused)
    else:
        found: Any = load(environ={name: "{"}).model_dump(mode="json", by_alias=True)
        for part in path:
            found = found[part]
        assert found in ("{", "**", ["{"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CELERY_MONITOR_BROKER__URI", "did you mean `CELERY_MONITOR_BROKER__URL`?"),
        ("CELERY_MONITOR_BROKER_URL", "did you mean `CELERY_MONITOR_BROKER__URL`?"),
        ("CELERY_MONITOR_WEB_PORT", "did you mean `CELERY_MONITOR_WEB__PORT`?"),
        ("CELERY_MONITOR_XYZZY", "unknown variable"),
        (
            "CELERY_MONITOR_BROKER__QUEUE",
            "is a section; set its fields, for example CELERY_MONITOR_BROKER__QUEUE__NAME",
        ),
        (
            "CELERY_MONITOR_METRICS__STATIC_LABELS__ENV",
            "set all of it in CELERY_MONITOR_METRICS__STATIC_LABELS as JSON",
        ),
        ("CELERY_MONITOR_broker__url", "did you mean `CELERY_MONITOR_BROKER__URL`?"),
        ("celery_monitor_web__port", "write it in upper case: CELERY_MONITOR_WEB__PORT"),
        ("Celery_Monitor_Config", "write it in upper case: CELERY_MONITOR_CONFIG"),
    ],
)
def test_unknown_variable_is_refused(name: str, message: str) -> None:
    """An unknown variable with the prefix is an error with a suggestion."""
    others = {"CELERY_MONITOR_FLEET": "shop", "CELERY_MONITORING": "x", "celery_monitor_of_mine": "x"}
    found = faults(environ={name: "x", **others})
    assert list(found) == [name]
    assert message in found[name]


def test_service_links_are_no_configuration() -> None:
    """The variables that Kubernetes sets for services named celery-monitor* are ignored."""
    environ = {
        "CELERY_MONITOR_SERVICE_HOST": "10.0.0.1",
        "CELERY_MONITOR_SERVICE_PORT": "9808",
        "CELERY_MONITOR_SERVICE_PORT_HTTP": "9808",
        "CELERY_MONITOR_PORT": "tcp://10.0.0.1:9808",
        "CELERY_MONITOR_PORT_9808_TCP": "tcp://10.0.0.1:9808",
        "CELERY_MONITOR_PORT_9808_TCP_PROTO": "tcp",
        "CELERY_MONITOR_PORT_9808_TCP_PORT": "9808",
        "CELERY_MONITOR_PORT_9808_TCP_ADDR": "10.0.0.1",
        "CELERY_MONITOR_WEB_PORT": "tcp://10.0.0.1:9808",
        "CELERY_MONITOR_WEB_SERVICE_HOST": "10.0.0.1",
    }
    assert load(environ=environ) == Settings()


def test_argument_displaces_a_secret_file(tmp_path: Path) -> None:
    """A URL of the command line or the environment overrides url_file of the file, and vice versa."""
    url_file = tmp_path / "url"
    url_file.write_text("redis://from-file\n")
    file = write(tmp_path, f"broker: {{url_file: {url_file}}}")
    assert load(file, environ={}).broker.url_source().get() == "redis://from-file"
    by_argument = load(file, overrides={"broker.url": "redis://argument"}, environ={})
    assert by_argument.broker.url_source().get() == "redis://argument"
    by_variable = load(
        write(tmp_path, "broker: {url: 'redis://in-file'}"),
        environ={"CELERY_MONITOR_BROKER__URL_FILE": str(url_file)},
    )
    assert by_variable.broker.url_source().get() == "redis://from-file"


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Problems of the file, the environment and a secret file are reported together."""
    file = write(tmp_path, "web: {port: 70000}\nstore: 5\nbroker: {url_file: /nowhere}\nfoo: 1")
    found = faults(file, {"CELERY_MONITOR_LOG__LEVEL": "loud", "CELERY_MONITOR_BROKER_": "x"})
    assert set(found) == {
        "web.port", "store", "broker.url_file", "foo", "CELERY_MONITOR_LOG__LEVEL", "CELERY_MONITOR_BROKER_",
    }  # fmt: skip
    assert "cannot read /nowhere: No such file" in found["broker.url_file"]


def test_variable_names_the_part_of_a_list() -> None:
    """A problem in a list from a variable is reported with the variable and the position."""
    found = faults(environ={"CELERY_MONITOR_ALERTS__RULES": '[{"name": "a", "severity": "bad"}]'})
    assert list(found) == ["CELERY_MONITOR_ALERTS__RULES[0].severity"]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
)
"""A billion values in 500 bytes."""


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("web:\n  port: 1\n   host: x", ":3:8", "mapping values are not allowed here"),
        ("web: {port: 1", ":1:14", "expected ',' or '}', but got '<stream end>'; is the { of line 1 closed?"),
        ("fleet: [a\nbroker: {url", ":2:7", "expected ',' or ']', but got ':'; is the [ of line 1 closed?"),
        ("web:\n  port: 1\n  port: 2", ":3:3", "is not YAML: duplicate key in a section"),
        ("web: {port: 1}\nweb: {}", ":2:1", "is not YAML: duplicate key in a section"),
        ("fleet: *x", ":1:8", "an alias (*name) has no anchor (&name); a text that begins with * needs quotes"),
        ("fleet: a\n\tb: c", ":2:1", "is not YAML: the line begins with a tab; indent with spaces"),
        ("web:\n  port: 1\n host: x", ":3:2", "all keys of a section must begin in the same column"),
        ("fleet: @x", ":1:8", "cannot start any token; texts with special characters"),
        ("[1, 2]", "", "must be a mapping of sections"),
        ("text", "", "must be a mapping of sections"),
        ("fleet: 2024-13-45", "", "is not YAML: it contains an invalid date or number; quote strings"),
        ("fleet: x\nlog: \x00", ":2", "is not YAML: the line has a control character"),
        ("fleet: x\nlog: \x1b[31m", ":2", "is not YAML: the line has a control character"),
        ("web:\n  port:\t1", ":2:8", "is not YAML: there is a tab before the value; use a space"),
        ("fleet: a\n---\nlog: {}", ":2:1", "is not YAML: the file has more than one document; remove the line ---"),
        ("? [a]\n: b", ":1:3", "is not YAML: a key must be a plain text"),
        ("a: " + "[" * 5000, ":1:53", "it is nested more than 50 levels deep"),
        ("a: " + "[" * 5000 + "]" * 5000, ":1:53", "it is nested more than 50 levels deep"),
        ("".join(" " * n + "a:\n" for n in range(500)), ":50:50", "it is nested more than 50 levels deep"),
        ("broker: &a\n  transport_options: *a", ":2:22", "an alias refers to a value that contains it"),
        ("a: &a [x, *a]", ":1:11", "an alias refers to a value that contains it"),
        (BOMB, ":5:36", "it has more than 100,000 values (aliases count as what they stand for)"),
        ("\n".join(f"k{n % 999}: 1" for n in range(1000)), ":1000:1", "duplicate key in a section"),
        ("# " + "x" * (1 << 20), "", "cannot read the configuration: it is larger than 1048576 bytes"),
    ],
)
def test_yaml_fault_has_its_place(tmp_path: Path, text: str, where: str, message: str) -> None:
    """Invalid YAML is refused with line and column, if there are any."""
    file = write(tmp_path, text)
    found = faults(file)
    assert list(found) == [f"{file}{where}"]
    assert message in found[f"{file}{where}"]
    if message.startswith("is not YAML: "):  # the whole of it, without a hint that belongs to something else
        assert found[f"{file}{where}"] == message


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """A directory instead of the file is refused with its path."""
    assert "cannot read" in faults(tmp_path)[str(tmp_path)]


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        ("fleet: x\n# caf\xe9".encode("latin-1"), ":2", "is not UTF-8 text; save the file as UTF-8"),
        (b"fleet: x\n\n\xff\xfe", ":3", "is not UTF-8 text; save the file as UTF-8"),
        (b"\xff\xfef\0\0\xd8", "", "is not text; save it as UTF-8"),
    ],
)
def test_other_encodings(tmp_path: Path, content: bytes, where: str, message: str) -> None:
    """Content that is not UTF-8 is reported with the line."""
    file = tmp_path / "monitor.yaml"
    file.write_bytes(content)
    assert faults(file) == {f"{file}{where}": message}


def test_deep_json_in_a_variable() -> None:
    """Endless brackets are a problem of the variable, not a traceback."""
    found = faults(environ={"CELERY_MONITOR_BROKER__TRANSPORT_OPTIONS": '{"a":' * 100_000})
    assert found == {"CELERY_MONITOR_BROKER__TRANSPORT_OPTIONS": "must be JSON; it is nested too deep"}


def test_configuration_from_a_pipe() -> None:
    """``--config <(command)`` is read to its end, even if it is written late."""
    out, into = os.pipe()

    def write_slowly() -> None:
        with os.fdopen(into, "wb", buffering=0) as writer:
            writer.write(b"fleet: ")
            writer.write(b"piped\n")

    with os.fdopen(out):
        writing = threading.Thread(target=write_slowly)
        writing.start()
        assert load(Path(f"/dev/fd/{out}"), environ={}).fleet == "piped"
        writing.join()


def test_configuration_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe without a writer, a device and a socket are reported, immediately or after a timeout."""
    monkeypatch.setattr(yaml_file, "_PIPE_TIMEOUT", 0.01)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "nothing was written to it" in faults(pipe)[str(pipe)]
    assert "it is not a regular file" in faults(Path("/dev/zero"))["/dev/zero"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert "cannot read the configuration" in faults(tmp_path / "socket")[str(tmp_path / "socket")]


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    """If a configured path is a pipe, a device, a socket or a directory, the daemon does not start."""
    pipe, place = tmp_path / "pipe", tmp_path / "socket"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        for path, kind in [(pipe, "a named pipe"), ("/dev/null", "a device"), (place, "a socket"), (tmp_path, "a dir")]:
            found = faults(environ={"CELERY_MONITOR_STORE__URL": f"sqlite:///{path}"})
            assert f"{path} is {kind}" in found["CELERY_MONITOR_STORE__URL"]
            options = json.dumps({"ca_certs": str(path)})
            found = faults(environ={"CELERY_MONITOR_BROKER__USE_SSL": options})
            assert f"{path} is {kind}" in found["CELERY_MONITOR_BROKER__USE_SSL"]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["10s", "1MiB", KEY]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from([".".join(path) for path, _ in fields()])


@given(st.dictionaries(paths, json_like, max_size=4))
def test_any_value_loads_or_is_a_config_error(overrides: dict[str, object]) -> None:
    """Any values give Settings or a ConfigError with a problem, never another error."""
    found = problems(overrides, {})
    assert found is None or (found and all(problem.path and problem.message for problem in found))


@given(st.dictionaries(st.sampled_from([variable(path) for path, _ in fields()]), st.text(), max_size=4))
def test_any_variable_loads_or_is_a_config_error(environ: dict[str, str]) -> None:
    """Any variables give Settings or a ConfigError with a problem."""
    found = problems({}, environ)
    assert found is None or (found and all(problem.path and problem.message for problem in found))
