"""HTTP by Starlette on uvicorn: metrics, probes, the API and the page.

Nothing here writes to the store, and no client can make the daemon wait: connections are bounded and timed, store
queries run in a small pool of their own, and metrics and probes need neither.

    server.py      the listening socket and the serving loop
    connection.py  deadlines and bounds of one connection
    site.py        what is served from what; routes
    scrape.py      /metrics, rendered once for all who wait
    guard.py       HTTP Basic and security headers
    queries.py     the store's queries, in threads
    parameters.py  query parameters, checked
    api.py         /api/v1
    views.py       values as JSON
    openapi.py     the description of /api/v1
    pages.py       the page
"""

from celery_monitor.adapters.web.server import WebServer
from celery_monitor.adapters.web.site import Site

__all__ = ["Site", "WebServer"]
