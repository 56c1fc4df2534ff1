"""The listening socket and the serving loop."""

import errno
import socket
import threading
from collections.abc import Callable
from typing import Final

import uvicorn

from celery_monitor.adapters.web.connection import IDLE_SECONDS, Connection
from celery_monitor.adapters.web.site import Site
from celery_monitor.errors import ConfigError, MonitorError, PortUnavailableError, Problem

BACKLOG: Final = 128
"""Also how many connections uvicorn accepts before it does anything else."""
GRACE_SECONDS: Final = 2
"""For answers under way when the server stops."""


class WebServer:
    """Serves a site. ``start`` listens, ``serve`` answers until told to stop."""

    def __init__(self, site: Site, *, host: str, port: int) -> None:
        self._site = site
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._port

    def start(self) -> None:
        """Listen. From here on clients connect, and are answered as soon as ``serve`` runs.

        Raises:
            PortUnavailableError: Another program has the port, or the name server does not answer.
            ConfigError: The address can never be listened on.
        """
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            both = family == socket.AF_INET6 and self._host == "::" and socket.has_dualstack_ipv6()
            self._socket = socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
        except OSError as exc:
            raise self._refusal(exc) from exc
        self._port = self._socket.getsockname()[1]

    def _refusal(self, exc: OSError) -> MonitorError:
        told = f"cannot listen on {self._host}, port {self._port}: {exc.strerror or exc}"
        if exc.errno == errno.EADDRINUSE:
            return PortUnavailableError(
                f"{told}: is another celery-monitor running? `ss -ltnp 'sport = :{self._port}'` shows who has the "
                "port; end that, or set another web.port"
            )
        if exc.errno == socket.EAI_AGAIN:
            return PortUnavailableError(f"{told}: write an address in web.host, which needs no name server")
        of_host = isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL
        return ConfigError([Problem("web.host" if of_host else "web.port", told)])

    def serve(self, stop: threading.Event, turned: Callable[[], None]) -> None:
        """Answer until ``stop`` is set, then at most GRACE_SECONDS more; ``turned`` is called ten times a second."""
        if self._socket is None:
            raise RuntimeError("start comes before serve")
        config = uvicorn.Config(
            self._site.app,
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            # Whatever a client does wrong is no news to the log.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(IDLE_SECONDS),
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        _Server(config, stop, turned).run(sockets=[self._socket])

    def stop(self) -> None:
        """Listen no more, and drop what waits for the store. ``serve`` ends by its own event."""
        if self._socket is not None:
            self._socket.close()
        self._site.stop()


class _Server(uvicorn.Server):
    """Uvicorn's server, stopped by an event, and leaving no connection behind."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event, turned: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._turned = turned

    async def on_tick(self, counter: int) -> bool:
        self._turned()
        return await super().on_tick(counter) or self._stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.cut()
