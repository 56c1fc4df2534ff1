"""Addresses of every kind, servers that accept few at once, and servers that refuse the EHLO name."""

import socket
import threading

import pytest

from celery_monitor.adapters.channels.email.sender import describe, send_test, server_of
from celery_monitor.adapters.channels.email.session import SmtpServer
from celery_monitor.adapters.channels.email.smtp import BATCH, SendResult, deliver
from celery_monitor.errors import RejectedError, RetryableError
from celery_monitor.settings import EmailSettings, email_address
from tests.servers.scripted import misbehaving

ANN = "ann@shop.example"


class Talk:
    """A server with positive answers, except for lines that start with a key of ``answers``.

    Instead of an empty answer, it closes the connection. Records the received lines.
    """

    def __init__(self, answers: dict[str, bytes], extensions: str = "") -> None:
        self.answers, self.extensions = answers, extensions
        self.lines: list[str] = []
        self.mails: list[list[str]] = []

    def speak(self, connection: socket.socket, over: threading.Event) -> None:
        """One session."""
        del over
        recipients: list[str] = []
        lines = connection.makefile("rb")
        connection.sendall(self.answers.get("", b"220 mail.example\r\n"))
        for raw in lines:
            line = raw.decode().rstrip("\r\n")
            self.lines.append(line)
            verb = line[:4].upper()
            answer = next(
                (said for start, said in self.answers.items() if start and line.upper().startswith(start.upper())), None
            )
            if answer is None and verb == "EHLO":
                answer = f"250-mail.example\r\n250 {self.extensions or 'HELP'}\r\n".encode()
            elif answer is None and verb == "DATA":
                connection.sendall(b"354 go on\r\n")
                for content in lines:
                    if content == b".\r\n":
                        break
                self.mails.append(recipients)
                answer = b"250 queued\r\n"
            elif answer is None and verb == "RCPT":
                recipients.append(line)
            elif answer is None and verb == "MAIL":
                recipients = []
            if answer == b"":
                return
            connection.sendall(answer or b"250 OK\r\n")
            if (answer or b"").startswith(b"421") or verb == "QUIT":
                return


def send(port: int, *recipients: str, sender: str = "monitor@shop.example", hello: str | None = None) -> SendResult:
    """Send a mail to these recipients."""
    server = SmtpServer("127.0.0.1", port, "none", hello=hello)
    return deliver(server, sender, recipients or (ANN,), lambda _: b"Subject: a\r\n\r\nb\r\n", deadline=30.0)


@pytest.mark.parametrize(
    "answers",
    [
        {"EHLO": b"421-4.7.0 Try again later, closing connection.\r\n421 4.7.0 gsmtp\r\n"},
        {"EHLO": b"421-4.7.0 Try again later, closing connection.\r\n421"},
        {"EHLO": b"550 5.7.1 Try again later, bad name\r\n"},
        {"EHLO": b"504 5.5.2 Try again later\r\n"},
        {"RCPT": b"504 5.5.2 <[127.0.0.1]>: Helo command rejected: Try again later, need fully-qualified hostname\r\n"},
        {"MAIL": b"550 Try again later, invalid HELO name\r\n"},
        {"": b"421 4.7.0 Try again later\r\n"},
    ],
)
def test_a_name_that_a_server_does_not_like(answers: dict[str, bytes]) -> None:
    """The answer is kept, the mail waits, and the remedy is email.hello."""
    with misbehaving(Talk(answers).speak) as port, pytest.raises(RetryableError, match="Try again later") as caught:
        send(port)
    assert (caught.value.after or 0) >= 300
    assert "email.hello" in (caught.value.remedy or "")


def test_the_name_in_ehlo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting, otherwise the host's name if it has a dot, otherwise the sender's domain; never [127.0.0.1]."""
    talk = Talk({"EHLO": b"502 what\r\n"})
    with misbehaving(talk.speak) as port:
        send(port, hello="monitor.example.com")
        monkeypatch.setattr(socket, "gethostname", lambda: "pod-0")
        send(port, sender="m@bücher.example")
        monkeypatch.setattr(socket, "gethostname", lambda: "box.shop.example")
        send(port)
    names = [line.partition(" ")[2] for line in talk.lines if line.upper().startswith("HELO")]
    assert names == ["monitor.example.com", "xn--bcher-kva.example", "box.shop.example"]
    made = EmailSettings.model_validate({"from": "m@bücher.example", "hello": "Monitor.Example."})
    assert server_of(made).hello == "monitor.example"


def test_international_addresses() -> None:
    """A domain is sent in ASCII. Before the @, SMTPUTF8 is required; without it, only this recipient is refused."""
    people = (ANN, "Jürgen <m@bücher.example>", "jürgen@faß.example", '"a b"@shop.example')
    for extensions, taken in (("HELP", 3), ("SMTPUTF8", 4)):
        talk = Talk({}, extensions)
        with misbehaving(talk.speak) as port:
            delivery = send(port, *people)
        wire = [recipient.removeprefix("RCPT TO:") for mail in talk.mails for recipient in mail]
        assert wire[:3] == ["<ann@shop.example>", "<m@xn--bcher-kva.example>", '<"a b"@shop.example>']
        assert len(delivery.accepted) == len(wire) == taken
        if taken == 4:
            assert wire[3] == "<jürgen@xn--fa-hia.example>"
            assert "MAIL FROM:<monitor@shop.example> BODY=8BITMIME SMTPUTF8" in talk.lines
        else:
            assert "SMTPUTF8" in delivery.refused["jürgen@faß.example"].text


def test_a_server_that_takes_few_recipients() -> None:
    """Excess recipients are sent in the next transaction; more than 50 are divided in advance."""
    people = [f"p{number}@shop.example" for number in range(BATCH + 20)]
    talk = Talk({"RCPT TO:<p7@": b"452 4.5.3 too many recipients\r\n"})
    with misbehaving(talk.speak) as port:
        delivery = send(port, *people)
    assert [len(mail) for mail in talk.mails] == [7, 49, 13]
    assert len(delivery.accepted) == len(people) - 1
    assert list(delivery.refused) == ["p7@shop.example"]


@pytest.mark.parametrize(
    "answer",
    [
        b"554 5.7.1 <ann@shop.example>: Relay access denied\r\n",
        b"554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied\r\n",
        b"553 5.7.1 <monitor@shop.example>: Sender address rejected: not owned by user monitor\r\n",
        b"550 relay not permitted\r\n",
    ],
)
@pytest.mark.parametrize("command", ["MAIL", "RCPT"])
def test_a_client_that_may_not_send_is_tried_again(command: str, answer: bytes) -> None:
    """Somebody has to permit it: until then the mail waits, and is retried rarely."""
    with misbehaving(Talk({command: answer}).speak) as port, pytest.raises(RetryableError) as caught:
        send(port, ANN, "bob@shop.example")
    assert caught.value.needs_repair
    assert "email.from" in (caught.value.remedy or "")
    assert answer.decode()[:9] in str(caught.value)


@pytest.mark.parametrize("answer", [b"550 5.1.1 <relay@shop.example>: no such user\r\n", b"550 no such user\r\n"])
def test_an_unknown_recipient_is_no_matter_of_the_client(answer: bytes) -> None:
    """Whatever the address is called: it is refused for good."""
    with misbehaving(Talk({"RCPT": answer}).speak) as port, pytest.raises(RejectedError):
        send(port, "relay@shop.example")


def test_a_recipient_who_takes_no_mail_from_this_client_is_refused_for_good() -> None:
    """Others accept it, so the client may send: a group that accepts only mail of members."""
    talk = Talk({"RCPT TO:<bob@": b"550 5.7.133 sender not authenticated for group\r\n"})
    with misbehaving(talk.speak) as port:
        delivery = send(port, ANN, "bob@shop.example")
    assert delivery.accepted == (ANN,)
    assert delivery.refused["bob@shop.example"].final


def test_a_test_mail_that_not_everybody_gets() -> None:
    """Each refused recipient is listed with the server's answer, without control characters."""
    talk = Talk({"RCPT TO:<bob@": b"550 5.1.1 no \x1b[31muser\r\n"})
    with misbehaving(talk.speak) as port:
        values = {"host": "127.0.0.1", "port": port, "security": "none", "from": "m@shop.example"}
        made = EmailSettings.model_validate({**values, "to": [ANN, "bob@shop.example", "ANN@shop.example"]})
        delivery = send_test(made, "shop")
    description = describe(delivery, server_of(made))
    assert "refused bob@shop.example: 550 5.1.1 no" in description
    assert "\x1b" not in description
    assert talk.mails == [["RCPT TO:<ann@shop.example>"]]


GOOD = {
    "a@example.com": "a@example.com",
    "a@Example.COM.": "a@example.com",
    '"Doe, John" <j@x.example>': "j@x.example",
    "Shop @ work <a@x.example>": "a@x.example",
    "a@[192.0.2.1]": "a@[192.0.2.1]",
    "a@[IPv6:::1]": "a@[IPv6:::1]",
    "o'brien+x@x_y.example": "o'brien+x@x_y.example",
    "a@münchen.example": "a@xn--mnchen-3ya.example",
    "a@MÜNCHEN.example": "a@xn--mnchen-3ya.example",
}
BAD = [
    "", "a", "@x.example", "a@", "a@x..example", "a@.example", "a b@x.example", "a@x.example, b@x.example",
    "a@b@c.example",
    "a@x.example\nBcc: b@x.example", "a@[x]", f"{'a' * 65}@x.example", f"a@{'b' * 64}.example", "a@x y.example",
    "a@☃.-x",
    "grp: a@x.example;", 'a"b@x.example', f"a@{'b.' * 130}example",
]  # fmt: skip


@pytest.mark.parametrize(("text", "address"), GOOD.items())
def test_addresses(text: str, address: str) -> None:
    """As people write them, and as servers accept them."""
    assert email_address.parse(text).address == address


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_address(text: str) -> None:
    """It is refused with the configuration."""
    with pytest.raises(ValueError, match=r"must|has|is"):
        email_address.parse(text)
