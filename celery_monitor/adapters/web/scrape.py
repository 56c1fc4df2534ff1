"""``/metrics``, rendered in a separate thread and once for all waiting clients."""

import asyncio
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from celery_monitor.ports import Metrics, Scrape


class Scrapes:
    """Answers scrapes. At any time one exposition is being rendered and at most one of each format waits.

    Clients that arrive while one is being rendered share the next one: no client waits for more than two, or gets
    values older than its request.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "scrape")
        self._rendering = asyncio.Lock()
        self._next: dict[Hashable, asyncio.Task[Scrape]] = {}

    async def answer(self, request: Request) -> Response:
        """The endpoint."""
        accept, encoding = (",".join(request.headers.getlist(name)) for name in ("accept", "accept-encoding"))
        encoding_chosen = self._metrics.choose(accept, encoding)
        waiting = self._next.get(encoding_chosen)
        if waiting is None:
            waiting = self._next[encoding_chosen] = asyncio.create_task(self._rendered(encoding_chosen))
        # A client that disconnects must not cancel the answer for the others.
        return _Chunks(await asyncio.shield(waiting))

    def stop(self) -> None:
        """Stop the thread after its current work."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _rendered(self, encoding_chosen: Hashable) -> Scrape:
        async with self._rendering:
            del self._next[encoding_chosen]
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._metrics.render, encoding_chosen)


class _Chunks(Response):
    """A body that is sent in chunks, so that unsent data for a slow client is not copied."""

    def __init__(self, scrape: Scrape) -> None:
        super().__init__(headers=dict(scrape.headers))
        self._body = scrape.body
        self.headers["content-length"] = str(scrape.length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """The ASGI interface."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for chunk in self._body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
