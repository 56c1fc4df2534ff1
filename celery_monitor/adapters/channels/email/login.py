"""Logs in with a password by a mechanism that the server supports.

smtplib's ``login`` tries the next mechanism when the server is temporarily unable to check passwords, and loses the
reason if the server then closes the connection. It recognises the names of mechanisms only in upper case.
"""

import smtplib
import ssl
from collections.abc import Container
from typing import Final

from celery_monitor.adapters.channels.email.text import shorten
from celery_monitor.errors import RetryableError

AFTER_LOGIN: Final = 300.0
"""Seconds before another login attempt with refused credentials: providers lock accounts after too many attempts."""

_IN_CLEAR: Final = ("CRAM-MD5", "PLAIN", "LOGIN")
"""Mechanisms in the order in which they are tried without TLS, as in smtplib: CRAM-MD5 does not send the password."""
_ENCRYPTED: Final = ("PLAIN", "LOGIN", "CRAM-MD5")
"""The same with TLS. Servers that store only hashes of passwords may offer CRAM-MD5, refuse it each time, and block a
client with many refused logins."""
_SYNTAX: Final = 501
_LOGGED_IN: Final = 235
_ALREADY_LOGGED_IN: Final = 503
_ABOUT_SESSION: Final = frozenset({421, 503})
"""After a refused login: the server closes the connection or takes no other login. The reason is the refusal."""


def is_permanent(code: int) -> bool:
    """Whether this code is a permanent error: another attempt would fail as well."""
    return 500 <= code < 600  # noqa: PLR2004 - RFC 5321, 4.2.1


def log_in(session: smtplib.SMTP, username: str, password: str, *, server: str) -> None:
    """Log in on a session after EHLO. ``server`` is the server's name in errors.

    Raises RetryableError if there is no common mechanism, and smtplib's errors, such as SMTPAuthenticationError.
    """
    session.user, session.password = username, password
    mechanisms = _mechanisms(session, server)
    refusal: smtplib.SMTPAuthenticationError | None = None
    try:
        for mechanism in mechanisms:
            try:
                return _try(session, mechanism, {_LOGGED_IN} if refusal else {_LOGGED_IN, _ALREADY_LOGGED_IN})
            except smtplib.SMTPAuthenticationError as exc:
                if refusal is not None and exc.smtp_code in _ABOUT_SESSION:
                    raise refusal from None
                # Some servers offer CRAM-MD5 without storing passwords in the form that it requires.
                if mechanism == mechanisms[-1] or not is_permanent(exc.smtp_code):
                    raise
                refusal = exc
            except (smtplib.SMTPServerDisconnected, ConnectionError):
                # Some servers close the connection after a refused login.
                if refusal is None:
                    raise
                raise refusal from None
    except UnicodeError:
        # Without the cause, which quotes the password.
        raise RetryableError("the user name and password must be ASCII", AFTER_LOGIN) from None


def _mechanisms(session: smtplib.SMTP, server: str) -> list[str]:
    offered = session.esmtp_features.get("auth", "").upper().split()
    order = _ENCRYPTED if isinstance(session.sock, ssl.SSLSocket) else _IN_CLEAR
    mechanisms: list[str] = [mechanism for mechanism in order if mechanism in offered]
    if mechanisms:
        return mechanisms
    if offered:
        problem = f"no login with a password (PLAIN, LOGIN or CRAM-MD5), only {shorten(' '.join(offered))}"
        remedy = "use an SMTP server or relay that accepts a user name and a password"
    elif session.has_extn("starttls"):
        problem = "no login (AUTH) without TLS"
        remedy = "set email.security to starttls"
    else:
        problem = "no login (AUTH)"
        remedy = "use the server's submission port (usually 587 or 465), or remove email.username and the password"
    raise RetryableError(f"{server} offers {problem}: {remedy}", AFTER_LOGIN, remedy=remedy)


def _try(session: smtplib.SMTP, mechanism: str, accepted: Container[int]) -> None:
    answer_to = getattr(session, f"auth_{mechanism.lower().replace('-', '_')}")
    try:
        code, answer = session.auth(mechanism, answer_to)
    except smtplib.SMTPAuthenticationError as exc:
        if exc.smtp_code != _SYNTAX:
            raise
        # Servers older than RFC 4954 accept only the name of the mechanism in this command.
        code, answer = session.auth(mechanism, answer_to, initial_response_ok=False)
    except smtplib.SMTPResponseException as exc:
        # The server closed the connection within its answer.
        raise smtplib.SMTPAuthenticationError(exc.smtp_code, exc.smtp_error) from exc
    if code not in accepted:
        raise smtplib.SMTPAuthenticationError(code, answer)
