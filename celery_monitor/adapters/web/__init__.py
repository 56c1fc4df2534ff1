"""HTTP by Starlette on uvicorn: metrics, probes, the API and the page.

Nothing here writes to the store, and no client can make the daemon wait: connections are bounded and timed, store
queries run in a small pool of their own, and metrics and probes need neither.

    server.py      the listening socket and the serving loop
    connection.py  deadlines and bounds of one connection
    site.py        what is served from what; routes
    scrape.py      /metrics, rendered once for all who wait
    guard.py       who may go on; security headers (policies.py)
    access.py      the ways to sign in: basic.py, auth_proxy.py, and sessions.py by sign_in.py
    audience.py    who a path is for
    people.py      who is signed in, and their role
    signing.py     texts in cookies that nobody else can have written
    destination.py where a browser goes to sign in, and back
    origin.py      whether a request comes from a page of this site
    fleets.py      the other fleets in the same database
    door.py        the pages in front of the sign-in
    queries.py     the store's queries, in threads
    parameters.py  query parameters, checked
    api.py         /api/v1
    views.py       values as JSON
    openapi/       the description of /api/v1
    pages.py       the overview and what belongs to no other; the page's routes
    listings.py    the pages with a form: tasks, failures, incidents
    runs.py        what runs now, and a task by its ID
    workers.py     workers, and what runs on one
    details.py     the pages of one thing: a task, a failure, an incident
    render.py      templates, and what all pages have in common
    status.py      the two states on top of every page
    trends.py      counts by hour, as they are drawn
    charts.py      pictures as SVG
    diagnosis.py   an incident in sentences
    tracebacks.py  a traceback, with the application's frames set apart
    search.py      names found by a part of them
"""

from celery_monitor.adapters.web.server import WebServer
from celery_monitor.adapters.web.site import Site

__all__ = ["Site", "WebServer"]
