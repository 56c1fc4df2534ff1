"""The listening sockets and the server loop."""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

import uvicorn

from celery_monitor.adapters.web.connection import IDLE_SECONDS, Connection
from celery_monitor.adapters.web.listen import NO_SUCH_ADDRESS, listen
from celery_monitor.adapters.web.site import Site
from celery_monitor.errors import ConfigError, MonitorError, PortUnavailableError, Problem

BACKLOG: Final = 128
"""Maximum number of connections waiting to be accepted."""
ACCEPTS_PER_ITERATION: Final = 2
"""Connections accepted per iteration, before old ones are closed: each of them uses an open file."""
GRACE_SECONDS: Final = 2
"""Time for answers in progress when the server stops."""
TICK: Final = 0.5
"""Seconds between two checks of ``stop``. Uvicorn's 0.1 s would be a fifth of an idle daemon's CPU time."""


class WebServer:
    """Serves a site. ``start`` listens, ``serve`` answers until it is stopped."""

    def __init__(self, site: Site, *, host: str, port: int) -> None:
        self._site = site
        self._host = host
        self._port = port
        self._sockets: list[socket.socket] = []

    @property
    def port(self) -> int:
        """The port, after ``start`` the one that was chosen."""
        return self._port

    @property
    def sign_ins_refused(self) -> Mapping[str, int]:
        """Number of refused sign-ins by reason."""
        return self._site.access.denials

    def start(self) -> None:
        """Listen. From now on clients can connect; they are answered when ``serve`` runs.

        Raises:
            PortUnavailableError: Another program uses the port, or the name server does not answer.
            ConfigError: It is impossible to listen on the address.
        """
        try:
            self._sockets = listen(self._host, self._port, BACKLOG)
        except (OSError, UnicodeError) as exc:
            raise self._refusal(exc) from exc
        self._port = self._sockets[0].getsockname()[1]

    def _refusal(self, exc: OSError | UnicodeError) -> MonitorError:
        if isinstance(exc, UnicodeError):
            return ConfigError([Problem("web.host", "is neither an IP address nor a host name")])
        # Python adds the address to the system's message, which here has the host and the port already.
        reason = exc.strerror if isinstance(exc, socket.gaierror) or not exc.errno else os.strerror(exc.errno)
        message = f"cannot listen on {self._host}, port {self._port}: {reason or exc}"
        if exc.errno == errno.EADDRINUSE:
            return PortUnavailableError(
                f"{message}: is another celery-monitor running? `ss -ltnp 'sport = :{self._port}'` shows which process "
                "uses the port; stop it, or set a different web.port"
            )
        if exc.errno == socket.EAI_AGAIN:
            return PortUnavailableError(f"{message}: set web.host to an IP address, which needs no DNS")
        if exc.errno == errno.EACCES:
            return ConfigError([Problem("web.port", f"{message}: use a port from 1024, or grant the privilege")])
        if isinstance(exc, socket.gaierror) or exc.errno in NO_SUCH_ADDRESS:
            remedy = "use an address of this machine, or :: for all of them"
            return ConfigError([Problem("web.host", f"{message}: {remedy}")])
        return ConfigError([Problem("web.port", message)])

    def serve(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Answer until ``stop`` is set, then at most GRACE_SECONDS more; ``heartbeat`` is called every TICK.

        It may be called again after it failed; it then listens again and raises the errors of ``start``.
        """
        if not self._sockets:
            raise RuntimeError("call start before serve")
        if self._sockets[0].fileno() < 0:
            self.start()
        config = uvicorn.Config(
            self._site.guard,
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            # Errors of clients are not logged.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=ACCEPTS_PER_ITERATION,
            timeout_keep_alive=int(IDLE_SECONDS),
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        _UvicornServer(config, stop, heartbeat, self._site.prepare).run(sockets=self._sockets)

    def stop(self) -> None:
        """Stop listening and drop requests that wait for the store. ``serve`` ends by its own event."""
        for listener in self._sockets:
            listener.close()
        self._site.stop()


class _UvicornServer(uvicorn.Server):
    """Uvicorn's server, which is stopped by an event and leaves no connections open."""

    def __init__(
        self,
        config: uvicorn.Config,
        stop: threading.Event,
        heartbeat: Callable[[], None],
        prepare: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        """``prepare`` runs concurrently with requests and is cancelled when the server stops."""
        super().__init__(config)
        self._stop = stop
        self._heartbeat = heartbeat
        self._prepare = prepare
        self._preparing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._preparing = asyncio.create_task(self._prepare())
        for listener in sockets or []:
            listener.listen(BACKLOG)  # asyncio uses one number for the backlog and for the connections accepted at once

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110 - the event is set by another thread
            await asyncio.sleep(TICK)

    async def on_tick(self, counter: int) -> bool:
        self._heartbeat()
        return await super().on_tick(counter) or self._stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.cut()
