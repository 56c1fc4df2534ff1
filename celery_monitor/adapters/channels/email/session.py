"""An SMTP session with a timeout for each answer, which does not lose the last answer before a disconnect.

smtplib handles the protocol's state and TLS. This module reads the answers itself, because smtplib discards an answer
if the connection closes within or right after it (such as Gmail's 421 for a refused EHLO name), applies its timeout to
each read instead of each answer, and does not limit the size of an answer.
"""

import base64
import io
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from celery_monitor.adapters.channels.email.login import log_in
from celery_monitor.adapters.channels.email.text import shorten
from celery_monitor.errors import RetryableError

_QUIT_TIMEOUT: Final = 2.0
_PENDING_ANSWER_TIMEOUT: Final = 1.0
_CLAIM_VALID: Final = 0.5
"""Age in seconds at which a claim is renewed before the end of the mail. No server accepts a mail before its end."""
_BLOCK: Final = 16_384
_MAX_LINE_LENGTH: Final = 8_192
_MAX_READ: Final = 1_048_576
"""Maximum size of all answers together, in bytes."""
_PASSWORD: Final = b"[password]"
_REPLY: Final = re.compile(rb"([0-9]{3})(?:([-\s])(.*))?\Z", re.DOTALL)
_NO_NUMBER: Final = -1
_NOT_IMPLEMENTED: Final = frozenset({500, 502})
_START_MAIL_INPUT: Final = 354
_OUTCOMES: Final = frozenset({2, 4, 5})
"""The first digits of valid answers to a whole mail."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts in seconds. The defaults are the minimum that RFC 5321, 4.5.3.2, requires of a client."""

    connection: float = 30.0
    answer: float = 300.0
    """For the greeting and all answers except those below."""
    data: float = 120.0
    block: float = 180.0
    final: float = 600.0
    """For the answer to the final dot of a mail. The server may take long; giving up too early causes a duplicate."""
    total: float = 900.0
    """For the whole session, except the answers to final dots, so that a server cannot block it by sending slowly."""

    def within(self, deadline: float | None) -> "Timeouts":
        """These timeouts, limited to ``deadline`` for the whole session, and again for the answer to a final dot."""
        return self if deadline is None else replace(self, total=deadline, final=min(self.final, deadline))


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """The address and the login of a server. ``password`` is called at each login."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    username: str | None = None
    password: Callable[[], str | None] = lambda: None
    tls: ssl.SSLContext | None = None
    """None: verify the host name, with the system's certificate authorities (or SSL_CERT_FILE)."""
    hello: str | None = None
    """The EHLO name; None: this host's name, or the sender's domain if that name has no dot."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class HelloRefusedError(Exception):
    """The server refused the EHLO name."""

    def __init__(self, hello: str, code: int, answer: bytes) -> None:
        super().__init__(hello, code, answer)
        self.hello, self.code, self.answer = hello, code, answer


class UnansweredError(Exception):
    """The whole mail was sent, but its outcome is unknown."""


@contextmanager
def connected(server: SmtpServer, hello: str, timeouts: Timeouts) -> Iterator["SmtpSession"]:
    """A session that is connected, encrypted and logged in as configured. Always closed. Raises smtplib's errors."""
    _check_name(server.host)
    tls = server.tls or (ssl.create_default_context() if server.security != "none" else None)
    password = server.password() or "" if server.username is not None else ""
    hidden = _password_forms(server.username or "", password)
    if server.security == "tls":
        session: SmtpSession = _Encrypted(server, hello, timeouts, hidden, context=tls)
    else:
        session = _Plain(server, hello, timeouts, hidden)
    try:
        if server.security == "starttls":
            session.starttls(context=tls)
        session.ehlo_or_helo_if_needed()
        if server.username is not None:
            log_in(session, server.username, password, server=str(server))
        yield session
    finally:
        # The answer to QUIT does not change the outcome of the mail.
        session.end_within(_QUIT_TIMEOUT)
        with suppress(OSError, ValueError):
            session.quit()
        session.close()


def _check_name(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise RetryableError(f"{shorten(host)} is not a host name: a label is empty or too long") from None


class SmtpSession(smtplib.SMTP):
    """smtplib's SMTP with a timeout for each answer instead of each read."""

    def __init__(
        self,
        server: SmtpServer,
        hello: str,
        timeouts: Timeouts,
        hidden: Sequence[bytes],
        **options: Any,  # noqa: ANN401  # SMTP_SSL's context
    ) -> None:
        """``hidden``: secrets to remove from answers, which are shown: some servers repeat refused credentials."""
        self._timeouts = timeouts
        self._hidden = hidden
        now = time.monotonic()
        self._end = now + timeouts.total
        self._until = now + timeouts.connection + timeouts.answer
        self._allowed = timeouts.answer
        # Passed here, because otherwise smtplib looks up the host's name without a timeout.
        wait = min(timeouts.connection, timeouts.total)
        super().__init__(server.host, server.port, local_hostname=hello, timeout=wait, **options)

    def end_within(self, seconds: float) -> None:
        """Limit the remaining time of the session."""
        self._end = min(self._end, time.monotonic() + seconds)

    def _claim(self, claim: Callable[[], None]) -> None:
        try:
            claim()
        except BaseException:
            self.close()  # otherwise the server waits for the rest
            raise

    def transfer(self, content: bytes, claim: Callable[[], None]) -> tuple[int, bytes]:
        """Send a mail with DATA, and return the answer to its final dot.

        ``claim`` is called just before the mail is sent, and again just before its end if the transfer takes long. If
        it raises, the mail is not sent. Raises UnansweredError if the whole mail was sent and there was no answer,
        SMTPDataError if the server refuses the mail, and OSError if it could not be sent.
        """
        self._allowed = self._timeouts.data
        code, answer = self.docmd("DATA")
        if code != _START_MAIL_INPUT:
            raise smtplib.SMTPDataError(code, answer)
        self._claim(claim)
        claimed_at = time.monotonic()
        body = _dot_stuffed(content)
        self._allowed = self._timeouts.block
        for start in range(0, len(body), _BLOCK):
            self.send(body[start : start + _BLOCK])
        if time.monotonic() - claimed_at > _CLAIM_VALID:
            self._claim(claim)  # a process that was suspended may have lost the lease
        started, end = time.monotonic(), self._end
        self._end, self._allowed = started + self._timeouts.final, self._timeouts.final
        try:
            self.send(b".\r\n")
            code, answer = self.getreply()
        except Exception as exc:
            raise UnansweredError from exc
        finally:
            # The time spent here does not count towards the limit of the rest of the session.
            self._end, self._allowed = end + time.monotonic() - started, self._timeouts.answer
        if code // 100 not in _OUTCOMES:
            raise UnansweredError
        return code, answer

    # --- what smtplib calls ---
    def ehlo_or_helo_if_needed(self) -> None:
        """Like smtplib's, but reports the answer to EHLO, and uses HELO only for a server without EHLO."""
        if self.helo_resp is not None or self.ehlo_resp is not None:
            return
        code, answer = self.ehlo()
        if code in _NOT_IMPLEMENTED:
            old, _ = self.helo()
            if old == 250:  # noqa: PLR2004  # as smtplib
                return
        if not 200 <= code < 300:  # noqa: PLR2004  # as smtplib
            raise HelloRefusedError(self.local_hostname, code, answer)

    def send(self, s: Any) -> None:  # noqa: ANN401  # smtplib's signature
        """Like smtplib's, with the timeout for an answer. Keeps the last answer before a disconnect."""
        self._until = min(self._end, time.monotonic() + self._allowed)
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        self.sock.settimeout(self._remaining())
        try:
            self.sock.sendall(s.encode(self.command_encoding) if isinstance(s, str) else s)
        except OSError as exc:
            code, answer = self._pending_answer()
            self.close()
            if answer:
                raise smtplib.SMTPResponseException(code, answer) from exc
            raise

    def getreply(self) -> tuple[int, bytes]:
        """Read one answer. The code is -1 if it is invalid."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        if self.file is None:
            self.file = io.BufferedReader(_TimedReader(self.sock, self._remaining))
        code = _NO_NUMBER
        lines: list[bytes] = []
        more = True
        while more:
            try:
                line = self._line()
            except (smtplib.SMTPServerDisconnected, ConnectionError) as exc:
                if not lines:
                    raise
                raise smtplib.SMTPResponseException(code, self._shown(lines)) from exc
            match = _REPLY.match(line)
            code, more = (int(match[1]), match[2] == b"-") if match else (_NO_NUMBER, False)
            lines.append((match[3] or b"" if match else line).strip())
        return code, self._shown(lines)

    def _line(self) -> bytes:
        assert self.file is not None  # noqa: S101 - getreply has opened it
        try:
            line = self.file.readline(_MAX_LINE_LENGTH)
        except OSError:
            self.close()
            raise
        if len(line) == _MAX_LINE_LENGTH:
            self.close()
            raise OSError("the server sent a line that is too long")
        if not line:
            self.close()
            raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
        return bytes(line)

    def _pending_answer(self) -> tuple[int, bytes]:
        self._until = time.monotonic() + _PENDING_ANSWER_TIMEOUT
        try:
            return self.getreply()
        except smtplib.SMTPResponseException as exc:
            return exc.smtp_code, _bytes(exc.smtp_error)
        except (OSError, ValueError):
            return _NO_NUMBER, b""

    def _shown(self, lines: Sequence[bytes]) -> bytes:
        answer = b"\n".join(lines)
        for secret in self._hidden:
            answer = answer.replace(secret, _PASSWORD)
        return answer

    def _remaining(self) -> float:
        remaining = min(self._until, self._end) - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out waiting for the response")
        return remaining


class _Plain(SmtpSession):
    pass


class _Encrypted(SmtpSession, smtplib.SMTP_SSL):
    pass


class _TimedReader(io.RawIOBase):
    """Reads from a socket, with ``remaining()`` seconds as the timeout of each read."""

    def __init__(self, sock: socket.socket, remaining: Callable[[], float]) -> None:
        self._sock = sock
        self._remaining = remaining
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # any writable buffer
        self._sock.settimeout(self._remaining())
        read = self._sock.recv_into(buffer)
        self._read += read
        if self._read > _MAX_READ:
            raise OSError("the server's response is too long")
        return read


def _dot_stuffed(content: bytes) -> bytes:
    """The content with CRLF line ends, and with dots at the start of lines doubled (RFC 5321, 4.5.2)."""
    body = re.sub(rb"(?m)^\.", b"..", re.sub(rb"\r\n|\r|\n", b"\r\n", content))
    return body if body.endswith(b"\r\n") else body + b"\r\n"


def _bytes(answer: bytes | str) -> bytes:
    return answer if isinstance(answer, bytes) else answer.encode("utf-8", "replace")


def _password_forms(username: str, password: str) -> list[bytes]:
    """The forms in which a password is sent."""
    if not password:
        return []
    plain = password.encode()
    return [plain, base64.b64encode(plain), base64.b64encode(f"\0{username}\0".encode() + plain)]
