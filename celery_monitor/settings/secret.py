"""Secrets: a type that redacts itself, files that are reloaded when they change, and URLs without passwords."""

import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

import pydantic
from pydantic import AfterValidator

REDACTED: Final = "**"
_MIN_PART: Final = 8
"""Minimum length of a part of a URL that is treated as a secret."""
_MAX_BYTES: Final = 1 << 16
"""Maximum size of a file with a secret. An endless file would use up all memory."""
_HOST: Final = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}|[0-9.]+", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(\[[0-9a-fA-F:.]*\]|[^:\[\]]*)(:[0-9]*)?")
_SECRET_PARAMETERS: Final = re.compile(r"pass|pwd|secret|token|credential|auth|(^|[_-]|api)key$", re.IGNORECASE)


class Secret(pydantic.Secret[str]):
    """A text that appears as ``**`` in repr, str, format and JSON; `get_secret_value` returns it."""

    def _display(self) -> str:
        return REDACTED


class SecretUrl(Secret):
    """A URL that appears without its password."""

    def _display(self) -> str:
        return redact_url(self.get_secret_value())


class CredentialUrl(Secret):
    """A URL that is a secret as a whole, such as an incoming webhook's: it shows only scheme and host."""

    def _display(self) -> str:
        return scheme_and_host(self.get_secret_value())


def scheme_and_host(url: str) -> str:
    """The URL with ``**`` in place of its path and query, either of which may be a secret; without a user."""
    scheme, separator, rest = url.partition("://")
    # An @ after the authority belongs to the path. If a password has an unescaped slash, the part before the slash is
    # not a valid port, and the whole URL is hidden.
    authority, path = _host_and_path(rest)
    authority = authority.rpartition("@")[2]
    if not separator or not re.fullmatch(_AUTHORITY, authority):
        return REDACTED
    return f"{scheme}://{authority}{path and f'/{REDACTED}'}"


def redact_url(url: str) -> str:
    """The URL without anything that may be a password. Several URLs may be separated by ``;``, as in kombu.

    For a malformed URL it hides too much rather than too little: a password with an unescaped ``@``, ``/``, ``?`` or
    ``;`` is hidden together with everything that might belong to it.
    """
    return ";".join(_redact_one(part) for part in re.split(r";(?=[A-Za-z0-9+.-]+://)", url))


def _redact_one(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return REDACTED
    # The last @ of the URL, not of the authority: everything before it has to be hidden as a whole.
    userinfo, at, location = rest.rpartition("@")
    user, _, password = userinfo.partition(":")
    if at:
        # Without a password, the user may be one: redis://secret@host, redis://secret:@host.
        userinfo = f"{user}:{REDACTED}@" if password else f"{REDACTED}@"
    location, question, query = location.partition("?")
    authority, slash, path = location.partition("/")
    if not all(re.fullmatch(_AUTHORITY, host) for host in authority.split(";")):
        authority = REDACTED
    pairs = [pair.partition("=") for pair in re.split("[&;]", query)]
    query_shown = "&".join(
        f"{key}{eq}{REDACTED if _SECRET_PARAMETERS.search(key) else value}" for key, eq, value in pairs
    )
    return f"{scheme}://{userinfo}{authority}{slash}{path}{question}{query_shown}"


def _host_and_path(rest: str) -> tuple[str, str]:
    """What follows the scheme in two parts; the second begins with ``/``, ``?`` or ``#``, or is empty."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    return authority, rest[len(authority) :]


def redact_keys(value: Any) -> Any:  # noqa: ANN401 - options are the transport's, of any shape
    """Options without values whose keys indicate a secret, at any depth (``sentinel_kwargs.password``)."""
    if isinstance(value, Mapping):
        return {
            key: REDACTED if _SECRET_PARAMETERS.search(str(key)) else redact_keys(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_keys(item) for item in value]
    return redact_url(value) if isinstance(value, str) and "://" in value else value


def url_parts(url: str) -> Iterator[str]:
    """A URL that is a secret as a whole, like those of chat services, and its parts that libraries may quote.

    Short parts are left out: they reveal nothing and may be any word. A web server's host alone is no secret.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return
    path = _host_and_path(rest)[1]
    # In other schemes even the host may be a token.
    web = scheme in {"http", "https"}
    if web and not path[1:] and "@" not in rest:
        return
    words, shortest = (path, 2 * _MIN_PART) if web else (rest, _MIN_PART)
    yield url
    yield from (part for part in (rest, path, path[1:]) if len(part) >= shortest)
    yield from (part for part in re.split("[/?&@:=]", words) if len(part) >= shortest and not _HOST.fullmatch(part))


def split_url(url: str) -> SplitResult:
    """Like `urllib.parse.urlsplit`, but checks the port.

    Raises:
        ValueError: Without any part of the URL: urllib quotes what it could not parse, often the password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(
            "is not a valid URL: is the port a number, and is every special character of the password "
            "percent-encoded (@ as %40, / as %2F, : as %3A, # as %23)?"
        ) from None
    return parts


def check_ends(url: str) -> None:
    """Raises ValueError if a URL begins or ends with a space: it would become part of a name, such as the vhost."""
    if url != url.strip():
        raise ValueError("must not begin or end with a space (if it belongs to a name, write it as %20)")


class SecretSource:
    """A secret from the configuration or from a file; at most one of them is given.

    The file is reloaded when it changes (Kubernetes replaces a symbolic link). While it is missing or empty, the last
    valid value is used. Thread-safe.
    """

    def __init__(self, value: pydantic.Secret[str] | None, file: Path | None = None) -> None:
        self._value = value.get_secret_value() if value is not None else None
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"SecretSource({REDACTED!r}, file={str(self._file) if self._file else None!r})"

    def get(self) -> str | None:
        """The present secret; None if none is configured."""
        if self._file is None:
            return self._value
        with self._lock:
            try:
                stat = self._file.stat()
                seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
                if seen != self._seen:
                    self._value, self._seen = read_secret(self._file), seen
            except (ValueError, OSError):
                pass  # It is being replaced: the next call tries again.
            return self._value


def read_secret(path: Path) -> str:
    """The text of a secret's file without the trailing newline, and without a byte order mark.

    Editors and shells on Windows begin UTF-8 files with one.

    Raises:
        ValueError: The file cannot be read, is too large, is not text, or is empty. The message contains the path and
            never the content.
    """
    try:
        text = _read(path).decode("utf-8-sig").rstrip("\r\n")
    except OSError as exc:
        # A relative path is one in the working directory, which differs between a service and a shell.
        raise ValueError(f"cannot read {path.absolute()}: {unreadable(exc)}") from exc
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def unreadable(exc: OSError) -> str:
    """Why a file cannot be read, and what to do if it is its permissions."""
    reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
    remedy = f": make it and its directory readable for user {os.getuid()}"
    return reason + remedy if isinstance(exc, PermissionError) else reason


def _read(path: Path) -> bytes:
    """The content. Raises OSError, and ValueError for a file that may block its reader or never end."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is not a regular file: write the secret to one")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_BYTES} bytes: is it the file with the secret?")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open without blocking: a named pipe would otherwise block the sending thread until it has a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _readable(path: Path) -> Path:
    read_secret(path)
    return path


SecretFile = Annotated[Path, AfterValidator(_readable)]


def checked_by(check: Callable[[str], object]) -> AfterValidator:
    """A validator for a Secret. ``check`` raises ValueError, without the text, if the text is invalid."""

    def validate(value: Secret) -> Secret:
        check(value.get_secret_value())
        return value

    return AfterValidator(validate)


def file_checked_by(check: Callable[[str], object]) -> AfterValidator:
    """A validator for the content of a SecretFile, using ``check``; the error names the file."""

    def validate(value: Path) -> Path:
        text = read_secret(value)
        try:
            check(text)
        except ValueError as exc:
            raise ValueError(f"{value}: {exc}") from None
        return value

    return AfterValidator(validate)
