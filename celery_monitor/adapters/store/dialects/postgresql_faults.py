"""Translates PostgreSQL's errors to those of this program, with advice.

An error on an open connection has a code (SQLSTATE). A failed attempt to connect has only a text, in the language of
the server. There is advice for the most common codes, and for the most common texts in English.
"""

import re
from typing import Final

import psycopg

from celery_monitor.errors import MonitorError, StoreFullError, StoreUnavailableError, StoreUnusableError
from celery_monitor.settings.store import STORE_URL

SILENT: Final = "the server does not answer"
_MAX_LENGTH: Final = 300
_NO_SPACE: Final = "53100"
_NO_RIGHTS: Final = "42501"
_BY_TEXT: Final = frozenset({None, "08P01"})
"""Errors while connecting have no code, and pgbouncer uses one code for all errors, so the text decides."""
_CREDENTIALS: Final = {STORE_URL: f"{STORE_URL}, store.url_file and store.password_file"}
_STANDBY: Final = (
    "this is a read-only standby, or a server that was made read-only (default_transaction_read_only): point {url} "
    "at the primary, or name all servers in it"
)
_TABLES_MISSING: Final = "restore the tables of this database, or restart all replicas to begin with an empty store"
_TOO_LATE: Final = "another transaction or high load on the server is blocking it"
_BY_CODE: Final = {
    "25006": _STANDBY,
    "3F000": _TABLES_MISSING,
    "42P01": _TABLES_MISSING,
    "55P03": _TOO_LATE,
    "57014": _TOO_LATE,
}
_REMEDIES: Final = (
    (r"password authentication failed|no password supplied|authentication failed",
     "check user and password in {credentials}"),
    (r'database ".*" does not exist',
     "create it (CREATE DATABASE … OWNER … ENCODING 'UTF8'), or correct the name in {url}"),
    (r'role ".*" does not exist', "create the role, or correct the user in {url}"),
    (r"no pg_hba.conf entry", "allow this host in the server's pg_hba.conf, or set sslmode in {url}"),
    (r"read-only|is not in hot standby mode|hot standby", _STANDBY),
    (r"too many connections for (role|database)",
     "raise its CONNECTION LIMIT (ALTER ROLE or ALTER DATABASE): each replica opens up to 24 and keeps 4"),
    (r"too many (clients|connections)|remaining connection slots|no more connections allowed",
     "raise the server's max_connections: each replica opens up to 24 and keeps 4"),
    (r"statement pooling", "set pool_mode = transaction in the pooler"),
    (r"failed to resolve|could not translate host name|name or service not known", "check the host in {url}"),
    (r"certificate|SSL|root\.crt", "check sslmode and sslrootcert in {url}, and the server's certificate"),
    (r"refused|does not answer|no such file|unreachable|no route", "check host and port in {url}, and the server"),
)  # fmt: skip


def unreadable_url(redacted_url: str, setting: str) -> StoreUnusableError:
    """The error for a URL that libpq cannot parse. ``redacted_url`` must not contain a secret.

    ``setting``: the name of the setting or option that contains the URL.
    """
    return StoreUnusableError(
        f"{setting} cannot be read ({redacted_url}): write "
        "postgresql://user@host:5432/database, with every special character percent-encoded"
    )


def classified(exc: BaseException, *, location: str, database: str, user: str, setting: str) -> MonitorError:
    """The error that tells the caller what to do about an error of psycopg. ``setting``: as in ``unreadable_url``."""
    code = getattr(exc, "sqlstate", None)
    reason = _message_of(exc)
    text = f"The store {location} is unavailable: {reason}"
    if code == _NO_SPACE:
        return StoreFullError(f"{text} (on the server): free space there; the monitor then continues by itself")
    if code == _NO_RIGHTS:
        owner = user or f"the user of {setting}"
        remedy = f"make {owner} the owner of the database: ALTER DATABASE {database} OWNER TO {user or '…'}"
    else:
        remedy = _remedy(code, reason).format(url=setting, credentials=_CREDENTIALS.get(setting, setting))
    return StoreUnavailableError(f"{text}: {remedy}" if remedy else text)


def _remedy(code: str | None, reason: str) -> str:
    """The remedy, with placeholders for what contains the URL and the credentials; empty if none is known."""
    if code in _BY_TEXT:
        return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, reason, re.IGNORECASE)), "")
    return _BY_CODE.get(code or "", "")


def _message_of(exc: BaseException) -> str:
    """The first line of the server's message, without DETAIL and CONTEXT, which contain values."""
    message = exc.diag.message_primary if isinstance(exc, psycopg.Error) else None
    if message is None:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        message = re.sub(r"^(connection failed: )+|FATAL: +", "", lines[0])
    if "timeout expired" in message:  # the server did not answer while connecting
        message = SILENT
    printable = "".join(char if char.isprintable() else "?" for char in message)
    return printable if len(printable) <= _MAX_LENGTH else f"{printable[:_MAX_LENGTH]}…"
