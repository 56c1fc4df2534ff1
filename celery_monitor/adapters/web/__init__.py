"""The HTTP server, with Starlette on uvicorn: metrics, probes, the API and the web pages.

Only silences are written to the store. No client can block the daemon: connections are bounded and have timeouts, store
queries run in a small thread pool, and metrics and probes need neither.

    server.py      the listening socket and the server loop
    connection.py  timeouts and limits of one connection
    site.py        the application and its routes
    scrape.py      /metrics, rendered once for all waiting clients
    guard.py       authentication of requests, and security headers (policies.py)
    access.py      the ways to sign in: basic.py, auth_proxy.py, and sessions.py by sign_in.py
    audience.py    whether a path is for programs or for people
    people.py      the signed-in person and their role
    signing.py     signed texts for cookies
    destination.py redirects to the sign-in and back
    origin.py      checks that a request comes from a page of this site
    fleets.py      the other fleets in the same database
    door.py        the pages before the sign-in
    queries.py     queries on the store, in threads
    parameters.py  validation of query parameters
    api.py         /api/v1
    views.py       values as JSON
    openapi/       the description of /api/v1
    pages.py       the overview, reports and static files; the routes of all pages
    listings.py    the lists with a form: tasks, failures, incidents
    runs.py        running, waiting and ended tasks, and a task by its ID
    workers.py     workers, and the tasks that run on one
    details.py     pages of a single task, failure or incident
    render.py      template rendering
    status.py      the two states at the top of every page
    trends.py      counts by hour for charts
    charts.py      charts as SVG
    diagnosis.py   sentences about an incident
    tracebacks.py  separates the application's frames in a traceback
    search.py      finds names by a part of them
"""

from celery_monitor.adapters.web.server import WebServer
from celery_monitor.adapters.web.site import Site

__all__ = ["Site", "WebServer"]
