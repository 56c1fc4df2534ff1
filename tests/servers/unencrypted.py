"""Plain HTTP by httpx, without what only HTTPS needs."""

import ssl
from typing import Final

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The ``verify`` of a request. Without one httpx loads all certificate authorities for each request: 20 ms of the
processor, ten times what the request itself takes."""
