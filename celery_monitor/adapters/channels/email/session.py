"""A conversation by SMTP whose every answer has its time, and whose last words are not lost.

smtplib gives the protocol's state and TLS. What it reads is read here: it gives up what a server said when the
connection ends within or right after it (Gmail's 421 to a name that it does not like), waits for each read instead of
for each answer, and keeps an answer without an end.
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

_FAREWELL: Final = 2.0
_LAST_WORDS: Final = 1.0
_CLAIM_VALID: Final = 0.5
"""Seconds for which a claim stands for the end of a mail: until it is sent no server takes it."""
_BLOCK: Final = 16_384
_MAX_LINE_LENGTH: Final = 8_192
_MAX_READ: Final = 1_048_576
"""Bytes of all answers together."""
_PASSWORD: Final = b"[password]"
_REPLY: Final = re.compile(rb"([0-9]{3})(?:([-\s])(.*))?\Z", re.DOTALL)
_NO_NUMBER: Final = -1
_NOT_IMPLEMENTED: Final = frozenset({500, 502})
_GO_ON: Final = 354
_OUTCOMES: Final = frozenset({2, 4, 5})
"""First digits of what can be an answer to a whole mail."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait. The defaults are the least that RFC 5321, 4.5.3.2, asks of a client."""

    connection: float = 30.0
    answer: float = 300.0
    """For an answer to anything but what follows, the greeting included."""
    data: float = 120.0
    block: float = 180.0
    final: float = 600.0
    """For the answer to the dot that ends a mail: a server may work on it for long, and sends it twice to be asked."""
    total: float = 900.0
    """For all of it without the answers to final dots, so that a server that drips bytes holds nothing."""

    def within(self, deadline: float | None) -> "Timeouts":
        """The same with ``deadline`` as the most for all of it, and once more for a final dot."""
        return self if deadline is None else replace(self, total=deadline, final=min(self.final, deadline))


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """How the server is reached. ``password`` is asked at each login."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    username: str | None = None
    password: Callable[[], str | None] = lambda: None
    tls: ssl.SSLContext | None = None
    """None: the system's certificate authorities (or SSL_CERT_FILE), with the host's name checked."""
    hello: str | None = None
    """The name that the client gives; None: this host's, or the sender's domain if that has no dot."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class HelloRefusedError(Exception):
    """The server does not like the client's name."""

    def __init__(self, hello: str, code: int, answer: bytes) -> None:
        super().__init__(hello, code, answer)
        self.hello, self.code, self.answer = hello, code, answer


class UnansweredError(Exception):
    """The whole mail was sent, and nobody knows what became of it."""


@contextmanager
def connected(server: SmtpServer, hello: str, timeouts: Timeouts) -> Iterator["SmtpSession"]:
    """Connected, encrypted and logged in as configured; closed in any case. Raises whatever smtplib raises."""
    _check_name(server.host)
    tls = server.tls or (ssl.create_default_context() if server.security != "none" else None)
    password = server.password() or "" if server.username is not None else ""
    hidden = _forms(server.username or "", password)
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
        # The answer to QUIT changes nothing: the mail is with the server, or it is not.
        session.end_within(_FAREWELL)
        with suppress(OSError, ValueError):
            session.quit()
        session.close()


def _check_name(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise RetryableError(f"{shorten(host)} is not a host name: a label is empty or too long") from None


class SmtpSession(smtplib.SMTP):
    """smtplib's SMTP. Each answer, not each read, gets the time that it is allowed."""

    def __init__(
        self,
        server: SmtpServer,
        hello: str,
        timeouts: Timeouts,
        hidden: Sequence[bytes],
        **options: Any,  # noqa: ANN401  # SMTP_SSL's context
    ) -> None:
        """``hidden`` is taken out of what the server says: some repeat what they refuse, and that is shown."""
        self._timeouts = timeouts
        self._hidden = hidden
        now = time.monotonic()
        self._end = now + timeouts.total
        self._until = now + timeouts.connection + timeouts.answer
        self._allowed = timeouts.answer
        # Given here, because smtplib would ask the resolver for as long as the resolver likes.
        wait = min(timeouts.connection, timeouts.total)
        super().__init__(server.host, server.port, local_hostname=hello, timeout=wait, **options)

    def end_within(self, seconds: float) -> None:
        """Bring the end of everything forward."""
        self._end = min(self._end, time.monotonic() + seconds)

    def _claim(self, claim: Callable[[], None]) -> None:
        try:
            claim()
        except BaseException:
            self.close()  # the server would wait for the rest
            raise

    def transfer(self, content: bytes, claim: Callable[[], None]) -> tuple[int, bytes]:
        """DATA with a mail that has CRLF; the answer to its final dot.

        ``claim`` is called just before the mail goes out, and again just before its end when that comes late: what it
        raises prevents the sending. Raises UnansweredError when it went out as a whole and no
        answer came; SMTPDataError when the server does not want it; OSError when it did not go out.
        """
        self._allowed = self._timeouts.data
        code, answer = self.docmd("DATA")
        if code != _GO_ON:
            raise smtplib.SMTPDataError(code, answer)
        self._claim(claim)
        claimed_at = time.monotonic()
        body = _stuffed(content)
        self._allowed = self._timeouts.block
        for start in range(0, len(body), _BLOCK):
            self.send(body[start : start + _BLOCK])
        if time.monotonic() - claimed_at > _CLAIM_VALID:
            self._claim(claim)  # a process that stood still may have lost the right to send
        begun, end = time.monotonic(), self._end
        self._end, self._allowed = begun + self._timeouts.final, self._timeouts.final
        try:
            self.send(b".\r\n")
            code, answer = self.getreply()
        except Exception as exc:
            raise UnansweredError from exc
        finally:
            # What was waited here is not taken from what comes after.
            self._end, self._allowed = end + time.monotonic() - begun, self._timeouts.answer
        if code // 100 not in _OUTCOMES:
            raise UnansweredError
        return code, answer

    # --- what smtplib calls ---
    def ehlo_or_helo_if_needed(self) -> None:
        """As smtplib's, but the answer to EHLO is the one that is told, and HELO is only for a server without EHLO."""
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
        """As smtplib's, within the time for an answer; what the server said before it hung up is not lost."""
        self._until = min(self._end, time.monotonic() + self._allowed)
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        self.sock.settimeout(self._left())
        try:
            self.sock.sendall(s.encode(self.command_encoding) if isinstance(s, str) else s)
        except OSError as exc:
            code, answer = self._last_words()
            self.close()
            if answer:
                raise smtplib.SMTPResponseException(code, answer) from exc
            raise

    def getreply(self) -> tuple[int, bytes]:
        """One answer; -1 in place of a code that is none."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        if self.file is None:
            self.file = io.BufferedReader(_TimedReader(self.sock, self._left))
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

    def _last_words(self) -> tuple[int, bytes]:
        self._until = time.monotonic() + _LAST_WORDS
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

    def _left(self) -> float:
        remaining = min(self._until, self._end) - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out waiting for the response")
        return remaining


class _Plain(SmtpSession):
    pass


class _Encrypted(SmtpSession, smtplib.SMTP_SSL):
    pass


class _TimedReader(io.RawIOBase):
    """A socket's bytes, each read within ``left()`` seconds."""

    def __init__(self, sock: socket.socket, remaining: Callable[[], float]) -> None:
        self._sock = sock
        self._left = remaining
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # any writable buffer
        self._sock.settimeout(self._left())
        read = self._sock.recv_into(buffer)
        self._read += read
        if self._read > _MAX_READ:
            raise OSError("the server's response is too long")
        return read


def _stuffed(content: bytes) -> bytes:
    """With CRLF at the end of each line, and dots at the begin of lines doubled (RFC 5321, 4.5.2)."""
    body = re.sub(rb"(?m)^\.", b"..", re.sub(rb"\r\n|\r|\n", b"\r\n", content))
    return body if body.endswith(b"\r\n") else body + b"\r\n"


def _bytes(answer: bytes | str) -> bytes:
    return answer if isinstance(answer, bytes) else answer.encode("utf-8", "replace")


def _forms(username: str, password: str) -> list[bytes]:
    """A password as it is sent."""
    if not password:
        return []
    plain = password.encode()
    return [plain, base64.b64encode(plain), base64.b64encode(f"\0{username}\0".encode() + plain)]
