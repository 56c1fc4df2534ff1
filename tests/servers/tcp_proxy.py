"""A loopback TCP proxy that cuts, stalls and refuses the connections between a client and a server."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.servers.ports import free_port

_CHUNK = 65_536
_T = TypeVar("_T")


class TcpProxy:
    """Forwards ``port`` to ``target_port``, both on 127.0.0.1, in a thread of its own.

    ``cut`` resets what is connected; ``stall`` holds every byte of old and new connections back, as a
    network that drops packets does; ``refuse`` resets new connections; ``resume`` ends both and delivers
    what was held back.
    """

    def __init__(self, target_port: int) -> None:
        """Choose the port; nothing is started yet."""
        self.port = free_port()
        self.target_port = target_port
        self.accepted = 0
        """Connections taken since the start."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self._start())

    def stop(self) -> None:
        """Close everything. It cannot be started again."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=60)
        self._loop.close()

    def cut(self) -> int:
        """Reset all connections, and return how many there were."""
        return self._run(self._cut())

    def stall(self) -> None:
        """Forward nothing in either direction, and close nothing."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def refuse(self) -> None:
        """Reset new connections from now on."""
        self._refusing = True

    def resume(self) -> None:
        """Forward again, held data first; accept connections again."""
        self._refusing = False
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    async def _start(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _cut(self) -> int:
        count = len(self._writers) // 2
        for writer in list(self._writers):
            writer.transport.abort()
        return count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self.accepted += 1
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        writers = {writer, target_writer}
        self._writers |= writers
        try:
            with suppress(asyncio.CancelledError):  # by stop; asyncio would log it as an error of the server
                await asyncio.gather(self._pump(reader, target_writer), self._pump(target_reader, writer))
        finally:
            self._writers -= writers
            for each in writers:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        if writer.can_write_eof() and not writer.is_closing():
            with suppress(OSError):
                writer.write_eof()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
