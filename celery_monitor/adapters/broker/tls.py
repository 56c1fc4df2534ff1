"""What TLS means: the certificate is verified, its name included, unless the settings say otherwise in so many words.

kombu and its transports each have an own idea of it: ``rediss://`` verifies nothing, ``rediss://`` with
``broker_use_ssl=True`` is not encrypted at all, and py-amqp verifies a certificate, but not whose it is.
"""

import ssl
from typing import Any, Final

from kombu import Connection

from celery_monitor.settings.broker import BrokerSettings, tls_options

_CERTIFICATES: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def apply(connection: Connection, settings: BrokerSettings, kind: str, url: str) -> None:
    """Give ``connection``, to ``url``, its TLS options, before it connects. Raises ValueError for those it cannot have.

    ``kind`` as in Dialer. What stands in the URL goes before ``broker.use_ssl``.
    """
    options = tls_options(url, settings.use_ssl)
    if options is None:
        connection.ssl = False
        return
    options_given = _named(options)
    if kind == "redis":
        options_used = {"ssl_cert_reqs": ssl.CERT_REQUIRED} | options_given
        if options_used["ssl_cert_reqs"] != ssl.CERT_NONE:
            options_used.setdefault("ssl_check_hostname", True)
    else:
        options_used = options_given
        if "context" not in options_given:
            options_used = {"cert_reqs": ssl.CERT_REQUIRED} | options_given
            if options_used["cert_reqs"] != ssl.CERT_NONE:
                options_used.setdefault("server_hostname", connection.hostname)
    connection.ssl = options_used


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """Celery's ``broker_use_ssl`` with names for the constants that a text file cannot hold (``CERT_REQUIRED``)."""
    verified = {key: _certificates(value) for key, value in options.items() if key.endswith("cert_reqs")}
    return options | verified


def _certificates(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return ssl.VerifyMode(value)
    name = str(value).lower().removeprefix("ssl.").removeprefix("cert_")
    if name not in _CERTIFICATES:
        raise ValueError("broker.use_ssl: cert_reqs must be required, optional or none")
    return _CERTIFICATES[name]
