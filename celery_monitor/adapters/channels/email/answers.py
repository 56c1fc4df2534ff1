"""Interprets a server's answers: what they mean for the mail, and who has to act.

Errors that concern the server, the account or this client (unreachable, no TLS, a wrong password, a refused EHLO name,
no permission to send) are RetryableErrors: somebody repairs them, and the mail is not lost meanwhile. A 5xx about this
mail or its addresses is permanent.
"""

import re
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from celery_monitor.adapters.channels.email.login import AFTER_LOGIN, is_permanent
from celery_monitor.adapters.channels.email.session import HelloRefusedError, SmtpServer
from celery_monitor.adapters.channels.email.text import shorten
from celery_monitor.errors import DeliveryError, MonitorError, RejectedError, RetryableError
from celery_monitor.network import Fault, ServerTerms, explain, fault_of, remedy

HELLO_REMEDY: Final = "set email.hello to this machine's fully qualified domain name, such as monitor.example.com"

_REPLY_WIDTH: Final = 200
_REPAIRED_BY_A_PERSON: Final = frozenset({500, 502, 503, 504, 530, 534, 535, 538})
"""Answers to MAIL, RCPT and DATA that concern this client's protocol or login, and not the mail."""
_REMEDIES: Final = {
    530: "set email.username and email.password, and email.security to starttls if the server asks for it",
    538: "set email.security to starttls (usually port 587) or tls (usually port 465)",
}
"""What to do about some of these answers."""
_NOT_AUTHORIZED: Final = re.compile(rb"\s*(?:5\.7\.\d|(?!5\.\d{1,3}\.\d).*\brelay)", re.IGNORECASE | re.DOTALL)
"""The server does not let this client send: its status code is 5.7.x (RFC 3463, 3.8), or it has none, as Exim's."""
_NOT_AUTHORIZED_REMEDY: Final = (
    "allow this machine or the user of email.username to send from email.from to these recipients on the server, "
    "or use another server"
)
_HELLO: Final = re.compile(rb"\b(?:helo|ehlo)\b", re.IGNORECASE)
_WORDING: Final = ServerTerms(
    address="email.host and email.port",
    protocol="email.security must match the port: usually starttls on 587, tls on 465, none on 25",
    trust="email.host must match the certificate; set SSL_CERT_FILE to trust another certificate authority",
)


class NotAuthorizedError(RetryableError):
    """The server does not permit this client to send: somebody has to permit it or configure another server."""

    def __init__(self, message: str) -> None:
        super().__init__(message, remedy=_NOT_AUTHORIZED_REMEDY, needs_repair=True)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server's answer to one recipient."""

    code: int
    text: str

    @classmethod
    def of(cls, code: int, answer: bytes) -> "Refusal":
        """The refusal of a raw answer."""
        return cls(code, _text(answer))

    @property
    def final(self) -> bool:
        """Whether the refusal is permanent."""
        return is_permanent(self.code)

    @property
    def concerns_client(self) -> bool:
        """Whether the refusal may concern this client, not the recipient. It does if no other recipient is accepted."""
        return self.final and _NOT_AUTHORIZED.match(self.text.encode()) is not None

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@contextmanager
def smtp_errors(server: SmtpServer, hello: str) -> Iterator[None]:
    """Convert all errors of smtplib, TLS, the resolver and the server to a DeliveryError."""
    try:
        yield
    except MonitorError:
        raise
    except HelloRefusedError as exc:
        raise RetryableError(
            f"{server} refused the EHLO name {hello}: {quote(exc.code, exc.answer)}; {HELLO_REMEDY}",
            AFTER_LOGIN,
            remedy=HELLO_REMEDY,
        ) from exc
    except smtplib.SMTPAuthenticationError as exc:
        raise _login_error(exc, server) from exc
    except smtplib.SMTPDataError as exc:
        raise refusal_of("the mail", exc.smtp_code, exc.smtp_error, server) from exc
    except smtplib.SMTPConnectError as exc:
        raise RetryableError(
            f"{server} refused the session: {quote(exc.smtp_code, exc.smtp_error)}",
            AFTER_LOGIN,
            remedy="see its response for the reason: it may be overloaded or block this machine's address; or "
            f"{HELLO_REMEDY}",
        ) from exc
    except smtplib.SMTPResponseException as exc:
        raise RetryableError(f"{server} answered {quote(exc.smtp_code, exc.smtp_error)}") from exc
    except ssl.SSLCertVerificationError as exc:
        raise RetryableError(
            f"the certificate of {server} is not trusted ({exc.verify_message})",
            remedy=remedy(Fault.CERTIFICATE, _WORDING),
        ) from exc
    except OSError as exc:
        # Every SMTPException is one.
        text = shorten(explain(exc) or str(exc), _REPLY_WIDTH) or type(exc).__name__
        raise RetryableError(f"{server}: {text}", remedy=remedy(_fault(exc), _WORDING)) from exc
    except Exception as exc:  # noqa: BLE001 - the boundary: a server can make smtplib raise anything
        # Without the text and the cause, which may quote the password.
        raise RetryableError(f"{server}: {type(exc).__name__}") from None


def _login_error(exc: smtplib.SMTPAuthenticationError, server: SmtpServer) -> RetryableError:
    answer = quote(exc.smtp_code, exc.smtp_error)
    if not is_permanent(exc.smtp_code):
        return RetryableError(
            f"{server} cannot check the login now ({answer})",
            AFTER_LOGIN,
            remedy="see its response for the reason: its user database may be down, or it limits logins",
        )
    return RetryableError(
        f"{server} refused the user name or the password ({answer})",
        AFTER_LOGIN,
        remedy=_REMEDIES.get(exc.smtp_code)
        or "check email.username and email.password, and whether the provider requires an app password",
    )


def _fault(exc: BaseException) -> Fault:
    if isinstance(exc, smtplib.SMTPNotSupportedError):
        return Fault.TLS
    return fault_of(exc) or Fault.CLOSED


def concerning_client(code: int, answer: bytes, server: SmtpServer) -> DeliveryError | None:
    """The error if an answer concerns this client's protocol, whichever command it answers; otherwise None."""
    if 400 <= code < 600 and _HELLO.search(answer):  # noqa: PLR2004 - RFC 5321, 4.2.1
        text = f"{server} refused the EHLO name: {quote(code, answer)}; {HELLO_REMEDY}"
        return RetryableError(text, AFTER_LOGIN, remedy=HELLO_REMEDY)
    if code in _REPAIRED_BY_A_PERSON:
        return RetryableError(f"{server} answered {quote(code, answer)}", AFTER_LOGIN, remedy=_REMEDIES.get(code))
    if not 400 <= code < 600:  # noqa: PLR2004 - as above
        return RetryableError(f"{server} answered {quote(code, answer)}, which is not a valid SMTP response")
    return None


def refusal_of(
    action: str, code: int, reply: bytes | str, server: SmtpServer, *, of_client: bool = False
) -> DeliveryError:
    """The error for a negative answer.

    ``of_client``: the server does not know the mail's content yet, so a policy error concerns the client.
    """
    answer = reply if isinstance(reply, bytes) else reply.encode("utf-8", "replace")
    if (error := concerning_client(code, answer, server)) is not None:
        return error
    message = f"{action} was refused: {quote(code, reply)}"
    if of_client and is_permanent(code) and _NOT_AUTHORIZED.match(answer):
        return NotAuthorizedError(message)
    return RejectedError(message) if is_permanent(code) else RetryableError(message)


def is_positive(code: int) -> bool:
    """Whether this code is a positive answer."""
    return 200 <= code < 300  # noqa: PLR2004 - RFC 5321, 4.2.1


def quote(code: int, reply: bytes | str) -> str:
    """An answer in one printable line of bounded length."""
    return f"{code} {_text(reply)}"


def _text(reply: bytes | str) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return shorten(" ".join(text.split()), _REPLY_WIDTH)
