"""Parses mail addresses as people write them into the form that mail servers accept.

The domain is sent in ASCII (IDNA 2008, RFC 5891), which every server accepts. A local part (before the ``@``) has no
such form: if it is not ASCII, it needs a server with SMTPUTF8 (RFC 6531).
"""

import ipaddress
import re
from dataclasses import dataclass
from email.headerregistry import Address
from email.utils import unquote
from typing import Final

import idna

MAX_LOCAL_PART_LENGTH: Final = 64
"""Octets; this and MAX_ADDRESS_LENGTH are from RFC 5321, 4.5.3.1."""
MAX_ADDRESS_LENGTH: Final = 254

_NAMED = re.compile(r"(?s)(.*?)\s*<([^<>]+)>\Z")
_ATOM = re.compile(r"[^\s()<>\[\]:;,@\\\"\x00-\x1f\x7f]+\Z")
_DOTTED = re.compile(r"[^.]+(?:\.[^.]+)*\Z")
_QUOTED = re.compile(r'"((?:[^"\\\r\n]|\\.)+)"\Z')
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """One mailbox."""

    name: str
    """The display name; may be ""."""
    local: str
    """The local part, without quotes."""
    domain: str
    """In ASCII and lower case, or an address literal like ``[192.0.2.1]``."""

    @property
    def international(self) -> bool:
        """Whether it can only be sent to by a server with SMTPUTF8."""
        return not self.local.isascii()

    @property
    def address(self) -> str:
        """The form for SMTP: ``local@domain``, quoted if necessary."""
        return Address(username=self.local, domain=self.domain).addr_spec

    @property
    def identity(self) -> str:
        """Equal for two spellings of one mailbox. No known server distinguishes upper and lower case."""
        return f"{self.local}@{self.domain}".casefold()

    @property
    def header(self) -> Address:
        """The form for a mail header."""
        return Address(display_name=self.name, username=self.local, domain=self.domain)


def parse(text: str) -> EmailAddress:
    """Parse ``ops@example.com`` or ``Shop monitor <ops@example.com>``. Raises ValueError that names the problem."""
    if not text.isprintable():
        raise ValueError("must not contain control characters or line breaks")
    match = _NAMED.match(text.strip())
    name, address = (match[1], match[2]) if match else ("", text)
    local, _, domain = address.strip().rpartition("@")
    quoted = _QUOTED.match(local)
    if not local or not domain or not (quoted or _ATOM.match(local)):
        raise ValueError("must be a mail address like ops@example.com or Shop monitor <ops@example.com>")
    mailbox = EmailAddress(_unquoted(name.strip()), unquote(local) if quoted else local, _domain(domain.strip()))
    octets = len(mailbox.local.encode())
    if octets > MAX_LOCAL_PART_LENGTH or octets + 1 + len(mailbox.domain) > MAX_ADDRESS_LENGTH:
        raise ValueError(
            f"is too long for a mail address: {MAX_LOCAL_PART_LENGTH} bytes before the @, {MAX_ADDRESS_LENGTH} in all"
        )
    return mailbox


def ascii_domain(domain: str) -> str:
    """A host or domain name in ASCII and lower case. Raises ValueError that names the problem."""
    name = domain.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, transitional=False).decode()
        except (idna.IDNAError, UnicodeError) as exc:
            raise ValueError(f"has a domain that is not valid IDNA ({exc})") from None
    if len(name) > 253 or not all(_LABEL.match(label) for label in name.split(".")):  # noqa: PLR2004 - RFC 1035
        raise ValueError("has an invalid domain: a label is empty, too long, or has invalid characters")
    return name


def _domain(text: str) -> str:
    if not text.startswith("["):
        return ascii_domain(text)
    literal = text.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(literal.removeprefix("IPv6:"))
    except ValueError:
        raise ValueError("has no IP address between [ and ]") from None
    return f"[{literal}]"


def _unquoted(name: str) -> str:
    return unquote(name) if _QUOTED.match(name) else name
