"""Shared by all settings: the base class, and types of validated text."""

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from celery_monitor.settings.secret import SecretUrl, read_secret, split_url


class FieldError(ValueError):
    """An error that a validator of a field or section found in another field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Section(BaseModel):
    """A part of the configuration. It is frozen, unknown keys are errors, and every field has a description."""

    # hide_input_in_errors: even an uncaught ValidationError shows no password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _normalize(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - any input of any field
        """Empty strings, common in templates and compose files, count as unset; `port: yes` is not port 1."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation is int:
            raise ValueError("must be a whole number")
        return None if value == "" and field.default is None and not field.is_required() else value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters or line breaks")
    if value.isspace():
        raise ValueError("must not be empty")
    return value


def check_http_url(value: str) -> str:
    """The text, which is the URL of a web server. Raises ValueError, without any part of it."""
    parts = split_url(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", value):
        raise ValueError("must be a URL like https://monitor.example.com")
    if parts.username is not None:
        raise ValueError("must not contain a user name or password: it is shown on pages and in incidents")
    return value


def _base_url(value: str) -> str:
    parts = split_url(check_http_url(value))
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment: paths are added at its end")
    return value


def is_http_url(value: str) -> bool:
    """Whether a text is a valid ``HttpUrl`` that can be used in a link."""
    try:
        check_http_url(value)
    except ValueError:
        return False
    return value.isprintable()


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # for "Europe" and "" ZoneInfo tries to open a directory
        raise ValueError("is not an IANA time zone; use a name like UTC or Europe/Berlin") from None
    return value


Text = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]
HttpUrl = Annotated[str, AfterValidator(check_http_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
TimeZone = Annotated[str, AfterValidator(_timezone)]
Glob = Annotated[str, Field(min_length=1, max_length=1000)]

_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

MAX_PORT: Final = 65535


def check_credentials(file: Path | None, info: ValidationInfo) -> None:
    """Check that user name and password are both set, the password in one place. Call it for ``password_file``.

    Raises:
        ValueError: Says which field to set.
    """
    if not {"username", "password"} <= info.data.keys():
        return  # One of them has its own error.
    username, password = info.data["username"], info.data["password"]
    if password is not None and file is not None:
        raise ValueError("set either password or password_file, not both")
    if username is None and (password is not None or file is not None):
        raise FieldError("username", "must be set with a password")
    if username is not None and password is None and file is None:
        raise FieldError("password", "must be set with a user name, here or by password_file")


def check_one_source(file: Path | None, info: ValidationInfo, *, required: bool = False) -> Path | None:
    """Check that ``<name>`` is not set as well; call it for ``<name>_file``. ``required``: one of them must be set.

    Raises:
        ValueError: Says which field to set.
    """
    name = str(info.field_name).removesuffix("_file")
    if name not in info.data:
        return file  # It has its own error.
    if required and file is None and info.data[name] is None:
        raise FieldError(name, f"is required, here or by {name}_file")
    if file is not None and info.data[name] is not None:
        raise ValueError(f"set either {name} or {name}_file, not both")
    return file


def check_url_file(
    file: Path | None, info: ValidationInfo, default: SecretUrl, check: Callable[[str], None]
) -> Path | None:
    """Check that ``url`` is not set as well, and the file's URL with ``check``. Call it for ``url_file``.

    Raises:
        ValueError: Says which field to set.
    """
    if file is not None:
        if info.data.get("url") is not default:
            raise ValueError("set either url or url_file, not both")
        check(read_secret(file))
    return file


def not_a_file(path: str) -> str | None:
    """The kind of a path that is not a regular file (a pipe would block for ever); None if it is one or is missing."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None  # It may exist when the daemon starts; opening it reports the error.
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)
