"""Sets TLS options so that the certificate and its hostname are verified, unless the settings explicitly disable it.

By default, kombu's transports differ: ``rediss://`` verifies nothing, ``rediss://`` with ``broker_use_ssl=True`` is not
even encrypted, and py-amqp verifies the certificate but not the hostname.
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
    """Set the TLS options of a ``connection`` to ``url`` before it connects. Raises ValueError for invalid options.

    ``kind``: see Dialer. Options in the URL take precedence over ``broker.use_ssl``.
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
    """The options with constants of ``ssl`` for their names, which a text file has to use (``CERT_REQUIRED``)."""
    verified = {key: _certificates(value) for key, value in options.items() if key.endswith("cert_reqs")}
    return options | verified


def _certificates(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return ssl.VerifyMode(value)
    name = str(value).lower().removeprefix("ssl.").removeprefix("cert_")
    if name not in _CERTIFICATES:
        raise ValueError("broker.use_ssl: cert_reqs must be required, optional or none")
    return _CERTIFICATES[name]
