"""Secrets are hidden, and their files are read again when they change."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from celery_monitor.settings import Secret, SecretSource, SecretUrl, redact_url
from celery_monitor.settings.secret import CredentialUrl, read_secret, redact_keys, url_parts

MARK = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:hunter2@localhost:5672//", "amqp://guest:**@localhost:5672//"),
        ("amqp://guest:hunter2@localhost", "amqp://guest:**@localhost"),
        ("redis://:hunter2@redis:6379/0", "redis://:**@redis:6379/0"),
        ("redis://hunter2@redis:6379/0", "redis://**@redis:6379/0"),
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        ("memory://", "memory://"),
        ("amqp://a:hunter2@h1//;amqp://b:hunter2@h2//", "amqp://a:**@h1//;amqp://b:**@h2//"),
        ("sentinel://:hunter2@s1:26379;s2:26380", "sentinel://:**@s1:26379;s2:26380"),
        ("sentinel://s1:26379;s2:26380/0", "sentinel://s1:26379;s2:26380/0"),
        ("sentinel://:hunter2@s1:1;sentinel://:hunter2@s2:2", "sentinel://:**@s1:1;sentinel://:**@s2:2"),
        ("redis://h/0?password=hunter2&db=1", "redis://h/0?password=**&db=1"),
        ("rediss://h/0?ssl_keyfile_password=hunter2", "rediss://h/0?ssl_keyfile_password=**"),
        ("redis+socket:///run/redis.sock?password=hunter2", "redis+socket:///run/redis.sock?password=**"),
        ("amqp://u:hun/ter2@h:5672//", "amqp://u:**@h:5672//"),
        ("amqp://u:hun@ter2@h//", "amqp://u:**@h//"),
        ("amqp://u:hun?ter2@h//", "amqp://u:**@h//"),
        ("amqp://u:hun;ter2@h//", "amqp://u:**@h//"),
        ("amqp://u:hunter2", "amqp://**"),
        ("amqp://u:p@[::1]:5672//", "amqp://u:**@[::1]:5672//"),
        ("hunter2", "**"),
        ("", "**"),
    ],
)
def test_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """A broker URL is shown except for everything that may be a password."""
    assert redact_url(url) == shown


@example(before="", after=":", url="redis://{}@h")
@given(
    before=st.text().filter(lambda text: "://" not in text),
    after=st.text().filter(lambda text: "://" not in text),
    url=st.sampled_from(["amqp://u:{}@h:5672//", "redis://:{}@h/0", "redis://{}@h", "sentinel://:{}@a:1;b:2"]),
)
def test_no_password_is_shown_whatever_it_holds(before: str, after: str, url: str) -> None:
    """The shown URL never contains the password, even if special characters were not escaped."""
    password = before + MARK + after
    assume(url != "redis://{}@h" or ":" not in after.rstrip(":"))  # what is before a colon is the user
    assert MARK not in redact_url(url.replace("{}", password))


@pytest.mark.parametrize("secret", [Secret(MARK), SecretUrl(f"amqp://u:{MARK}@h//"), SecretSource(Secret(MARK))])
def test_secret_hides_itself(secret: object) -> None:
    """A secret reveals nothing in str, repr, format, f-strings and containers."""
    for text in (str(secret), repr(secret), f"{secret}", f"{secret!r:>40}", "%s" % secret, str([secret])):  # noqa: UP031
        assert MARK not in text


def test_options_are_shown_without_secrets() -> None:
    """Values of secret keys are hidden at any depth, and URLs lose their passwords."""
    options = {
        "sentinel_kwargs": {"password": MARK, "db": 1},
        "credentials": {"user": MARK},
        "api_key": MARK,
        "hosts": [f"redis://:{MARK}@h/0"],
        "ssl_keyfile": "/etc/ssl/key.pem",
        "visibility_timeout": 3600,
    }
    shown = redact_keys(options)
    assert MARK not in json.dumps(shown)
    assert shown["sentinel_kwargs"]["db"] == 1
    assert shown["ssl_keyfile"] == "/etc/ssl/key.pem"
    assert shown["visibility_timeout"] == 3600


def test_source_of_a_value_gives_it() -> None:
    """Without a file it returns the value; without either it returns None."""
    assert SecretSource(Secret("a")).get() == "a"
    assert SecretSource(None).get() is None


def test_source_follows_its_file(tmp_path: Path) -> None:
    """A rewritten file is read again, even if its size is unchanged."""
    file = tmp_path / "key"
    file.write_text("first\n")
    source = SecretSource(None, file)
    assert source.get() == "first"
    replacement = tmp_path / "new"
    replacement.write_text("other\n")
    replacement.replace(file)
    assert source.get() == "other"


def test_source_follows_a_swapped_link(tmp_path: Path) -> None:
    """A symbolic link that Kubernetes replaces gives the new secret."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(version)
        # Same times and sizes: only the inode tells them apart.
        os.utime(tmp_path / version / "key", ns=(1, 1))
    (tmp_path / "data").symlink_to("v1")
    source = SecretSource(None, tmp_path / "data" / "key")
    assert source.get() == "v1"
    (tmp_path / "data.new").symlink_to("v2")
    (tmp_path / "data.new").rename(tmp_path / "data")
    assert source.get() == "v2"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_source_keeps_the_last_good_secret(tmp_path: Path, content: bytes | None) -> None:
    """While the file is missing, empty or unreadable, the last valid secret is used, then the next valid one."""
    file = tmp_path / "key"
    file.write_text("good")
    source = SecretSource(None, file)
    assert source.get() == "good"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert source.get() == "good"
    file.write_text("better")
    assert source.get() == "better"


@pytest.mark.parametrize(("content", "secret"), [("a\n", "a"), ("a\r\n", "a"), ("a b ", "a b "), ("a", "a")])
def test_only_the_trailing_newline_is_stripped(tmp_path: Path, content: str, secret: str) -> None:
    """The newline that editors add is not part of a secret; spaces are."""
    file = tmp_path / "key"
    file.write_bytes(content.encode())
    assert read_secret(file) == secret


def test_relative_path_is_shown_with_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a service is not that of the shell in which the file was written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}/key: No such file"):
        read_secret(Path("key"))


def test_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    """Editors and shells on Windows write one, and a server would refuse the password with it."""
    file = tmp_path / "key"
    file.write_bytes(b"\xef\xbb\xbfkey\r\n")
    assert read_secret(file) == "key"
    file.write_bytes(b"\xef\xbb\xbf\r\n")
    with pytest.raises(ValueError, match="is empty"):
        read_secret(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"\n", "is empty"),
        (b"\xff", "is not UTF-8 text"),
        (b"a" * 100_000, "is larger than 65536 bytes"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A missing, empty, binary or huge file is refused with its path."""
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_secret(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("kind", ["secret", "configuration"])
def test_missing_permission_is_named_with_its_user(kind: str) -> None:
    """The files belong to root, and the monitor runs as another user: the error says for whom to make them readable."""
    script = (
        "import os, pathlib, sys\n"
        "from celery_monitor.settings import secret, yaml_file\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "file = pathlib.Path(sys.argv[2])\n"
        "if sys.argv[1] == 'configuration': print(yaml_file.read(file))\n"
        "else:\n"
        "    try: secret.read_secret(file)\n"
        "    except ValueError as exc: print(exc)\n"
    )
    with tempfile.TemporaryDirectory() as temporary:  # not below tmp_path, which another user may not even enter
        file = Path(temporary, "file")
        file.touch(0o000)
        Path(temporary).chmod(0o755)
        command = [sys.executable, "-c", script, kind, str(file)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    user = os.getuid() or 65534
    assert f"Permission denied: make it and its directory readable for user {user}" in shown


def test_file_that_nobody_writes_or_that_never_ends_is_refused(tmp_path: Path) -> None:
    """A directory, a named pipe or a device: reading neither blocks nor uses up memory."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file, message in [
        (tmp_path, "Is a directory"),
        (pipe, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            read_secret(file)
        assert str(file) in str(caught.value)


def test_last_good_secret_stays_while_its_file_is_something_else(tmp_path: Path) -> None:
    """The sender keeps the last valid secret while the path is a directory, a pipe or a huge file."""
    file = tmp_path / "key"
    file.write_text("good")
    source = SecretSource(None, file)
    assert source.get() == "good"
    file.unlink()
    os.mkfifo(file)
    assert source.get() == "good"
    file.unlink()
    file.mkdir()
    assert source.get() == "good"
    file.rmdir()
    file.write_bytes(b"a" * 100_000)
    assert source.get() == "good"
    file.write_text("better")
    assert source.get() == "better"


@pytest.mark.parametrize(
    ("url", "hidden", "shown"),
    [
        (
            "https://hooks.slack.com/services/T000/B000/abcdefghijklmnopqrstuvwx",
            ["/services/T000/B000/abcdefghijklmnopqrstuvwx", "abcdefghijklmnopqrstuvwx"],
            ["services", "hooks.slack.com"],
        ),
        ("tgram://123456789:secret-token/-100123", ["123456789:secret-token/-100123", "secret-token"], []),
        ("slack://TokenAAAAAA/TokenB/chan", ["TokenAAAAAA"], ["slack", "chan"]),
        ("mailto://user:password1@gmail.com", ["password1"], ["gmail.com", "user"]),
        (
            "https://relay.example.com?token=hunter2-and-more",
            ["relay.example.com?token=hunter2-and-more", "token=hunter2-and-more", "hunter2-and-more"],
            ["relay.example.com"],
        ),
        ("https://relay.example.com/celery-monitor", ["relay.example.com/celery-monitor"], ["/celery-monitor"]),
        ("not a URL", [], ["not a URL"]),
        ("https://relay.example.com/", [], ["https://relay.example.com/", "relay.example.com/"]),
    ],
)
def test_the_parts_of_a_url_that_is_a_secret(url: str, hidden: list[str], shown: list[str]) -> None:
    """The whole URL and the parts that libraries quote are hidden, but no common words."""
    parts = set(url_parts(url))
    assert parts >= set(hidden)
    assert not parts & set(shown)
    assert (url in parts) is bool(hidden)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.com/services/hunter2", "https://hooks.example.com/**"),
        ("https://hooks.example.com:8443/a?token=hunter2#x", "https://hooks.example.com:8443/**"),
        ("https://hooks.example.com?token=hunter2", "https://hooks.example.com/**"),
        ("http://[::1]:8080/hunter2", "http://[::1]:8080/**"),
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("https://u:hunter2@hooks.example.com/a", "https://hooks.example.com/**"),
        # Microsoft Teams has an @ in the path
        ("https://hooks.example.com/webhookb2/1234@hunter2/IncomingWebhook/5678", "https://hooks.example.com/**"),
        ("https://hooks.example.com/services/@hunter2", "https://hooks.example.com/**"),
        ("https://hooks.example.com?token=a@hunter2:9", "https://hooks.example.com/**"),
        ("https://u:hunter/2@hooks.example.com/a", "**"),
        ("https://u:hunter2", "**"),
        ("hunter2", "**"),
    ],
)
def test_url_that_is_a_credential_is_shown_by_scheme_and_host(url: str, shown: str) -> None:
    """Neither path nor query are shown."""
    assert str(CredentialUrl(url)) == shown
