"""Error messages for failed requests, without passwords.

The URL of a proxy in the environment may contain a password. Errors quote that URL or parts of it, and a proxy may
repeat the request.
"""

import base64
import os
import re
from http.client import HTTPException
from typing import Final
from urllib.parse import unquote, urlsplit

from requests.exceptions import InvalidSchema, InvalidURL, ProxyError
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError

from celery_monitor import network

FOREIGN: Final = (
    OSError,  # includes all of requests' errors
    HTTPError,
    HTTPException,
    # For invalid proxy URLs, and answers that the libraries cannot parse.
    ValueError,
)

_NO_URL: Final = (
    "the proxy setting in the environment is not a valid URL (percent-encode special characters in its user and "
    "password: @ as %40, / as %2F, # as %23)"
)
_PROXY_REMEDY: Final = (
    "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment, and that the proxy runs and allows this host"
)
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables of requests with the path of the trusted CA certificates; the first one wins."""
_BUNDLE_REMEDY: Final = "set {} in the environment to a file of CA certificates that the monitor can read, or unset it"
_NO_SOCKS: Final = "SOCKS proxies are not supported: set HTTPS_PROXY to an http:// proxy"
_PASSWORD: Final = "[password]"  # noqa: S105  # what is shown in its place


class NoAnswerError(Exception):
    """There was no answer. The text gives the reason without the request's content. ``remedy``: what to do."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


def server(setting: str) -> network.ServerTerms:
    """The terms in remedies for a server whose address is in a setting."""
    return network.ServerTerms(
        address=f"that HTTPS to it is allowed, or set HTTPS_PROXY or {setting}",
        protocol=f"allow HTTPS to it, or set HTTPS_PROXY or {setting} (https:// if and only if the port uses TLS)",
        trust=f"set REQUESTS_CA_BUNDLE to the CA certificates of the intercepting proxy, or correct {setting}",
    )


def no_answer(exc: BaseException, url: str, server: network.ServerTerms) -> NoAnswerError:
    """The system's error for a request to ``url``, without the text of each layer, and the remedy."""
    message = _message(exc, url)
    errors = list(network.chain(exc))
    if isinstance(errors[-1], InvalidSchema) and (_proxy(url) or "").lower().startswith("socks"):
        return NoAnswerError(message, _NO_SOCKS)
    if any(isinstance(error, ProxyError) for error in errors):
        return NoAnswerError(f"proxy: {message.removeprefix('OSError: ')}", _PROXY_REMEDY)
    fault = network.fault_of(exc)
    if fault is not None:
        return NoAnswerError(message, network.remedy(fault, server))
    bundle = next((name for name in _BUNDLES if os.environ.get(name)), None)
    of_a_file = type(errors[-1]) in {OSError, FileNotFoundError, PermissionError}
    return NoAnswerError(message, _BUNDLE_REMEDY.format(bundle) if bundle is not None and of_a_file else None)


def refused_by_proxy(text: str, url: str) -> NoAnswerError:
    """The error if a proxy for ``url`` answered 407 with ``text``: the request did not reach the server."""
    reply = without_password(" ".join(text.split()), url)
    return NoAnswerError(f"proxy: 407 Proxy Authentication Required{reply and ': '}{reply}", _PROXY_REMEDY)


def origin(url: str) -> str:
    """Host and port, for messages: the path or the query of a URL may contain a secret."""
    return urlsplit(url).netloc


def _message(exc: BaseException, url: str) -> str:
    """The error's text, which may be long and contain a server's answer."""
    seen = list(network.chain(exc))[-1]
    unreadable = isinstance(seen, InvalidURL) or (isinstance(seen, ValueError) and not isinstance(seen, OSError))
    proxy = _proxy(url)
    if proxy is not None and (unreadable or _cut_short(proxy)):
        return _NO_URL
    return without_password(network.explain(exc) or f"{type(seen).__name__}: {seen}", url)


def without_password(text: str, url: str) -> str:
    """A text that may come from a proxy for ``url``, without the proxy's user and password."""
    proxy = _proxy(url)
    if proxy is None:
        return text
    userinfo = _authority(proxy).rpartition("@")[0]
    sent = unquote(userinfo)
    encoded = base64.b64encode(sent.encode("utf-8", "replace")).decode()
    for secret in (userinfo, sent, encoded, userinfo.partition(":")[2], sent.partition(":")[2]):
        if secret:
            text = text.replace(secret, _PASSWORD)
    return text


def _proxy(url: str) -> str | None:
    """The proxy that requests uses from the environment."""
    return select_proxy(url, get_environ_proxies(url))


def _authority(proxy: str) -> str:
    return re.split(r"[/?#]", _without_scheme(proxy), maxsplit=1)[0]


def _without_scheme(proxy: str) -> str:
    return proxy.partition("://")[2] or proxy


def _cut_short(proxy: str) -> bool:
    """Whether a character of the password ends the URL's host, which is then a part of the password."""
    return "@" in _without_scheme(proxy).removeprefix(_authority(proxy))
