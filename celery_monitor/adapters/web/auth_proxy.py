"""Sign-in by a proxy in front of the monitor, which sends the user name in a header.

The header is accepted only from the configured addresses. If it occurs twice, one may come from the client, so it is
ignored.
"""

import ipaddress
import math
from time import monotonic
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import Scope

from celery_monitor.adapters.web.people import MAX_NAME, Person, Roles
from celery_monitor.adapters.web.refused import Refused
from celery_monitor.core.text import printable
from celery_monitor.settings.sign_in import AuthProxySettings

NO_GROUP: Final = (
    "You are signed in as {}, but none of your groups may see this monitor. Ask its administrator for access."
)

_LOG_EVERY: Final = 60.0
"""Minimum seconds between two log lines, so that clients cannot fill the log."""

_log = structlog.get_logger()


class AuthProxy:
    """Reads the headers."""

    def __init__(self, settings: AuthProxySettings, roles: Roles) -> None:
        self._settings = settings
        self._roles = roles
        self.ignored = 0
        """Number of requests with untrusted headers."""
        self._quiet_until = -math.inf

    def person(self, scope: Scope, headers: Headers) -> Person | Refused | None:
        """The person named by the proxy, or the refusal; None if no person is named or the headers are not trusted."""
        users = headers.getlist(self._settings.user_header)
        groups = headers.getlist(self._settings.groups_header)
        if not any(map(str.strip, (*users, *groups))):
            return None
        peer, _ = scope.get("client") or ("", 0)
        name = _text(users[0]) if len(users) == 1 and len(groups) <= 1 else None
        if name is None or not self._trusts(peer):
            self._ignore(peer)
            return None
        groups_text = (_text(groups[0]) or "") if groups else ""
        role = self._roles.for_groups(
            part.strip() for part in groups_text.split(self._settings.groups_separator) if part.strip()
        )
        if role is None:
            return Refused(403, NO_GROUP.format(name), reason="group")
        return Person(name[:MAX_NAME], role)

    def _ignore(self, peer: str) -> None:
        self.ignored += 1
        now = monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_EVERY
            trusted = self._trusts(peer)
            _log.warning(
                "Ignored a user header that cannot be trusted", client=printable(peer, MAX_NAME), trusted=trusted
            )

    def _trusts(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in network for network in self._settings.addresses if network.version == address.version)


def _text(value: str) -> str | None:
    """A header's value as text; None if it is empty or contains unprintable characters."""
    text = value.encode("latin-1", "replace").decode("utf-8", "replace").strip()
    return text if text and text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text else None
