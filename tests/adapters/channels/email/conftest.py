"""Mail servers for one test each."""

from collections.abc import Iterator

import pytest

from tests.adapters.channels.email.mail_server import MailServer, serving
from tests.servers.certificate import Certificate


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """A server without TLS and login."""
    with serving(MailServer()) as server:
        yield server


@pytest.fixture(params=["starttls", "tls"])
def secure_mail(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[MailServer]:
    """A server with TLS, of both kinds, that requires a login."""
    with serving(MailServer(certificate, request.param, login=True)) as server:
        yield server
