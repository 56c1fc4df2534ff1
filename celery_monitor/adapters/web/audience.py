"""Classifies paths: for scrapers and probes, for programs, or for people."""

from typing import Final

OPEN_PATHS: Final = frozenset({"/metrics", "/livez", "/readyz", "/health", "/style.css", "/icon.svg"})
"""Paths that need no sign-in: for scrapers, for probes, and for the style of the sign-in page."""
_FOR_PROGRAMS: Final = ("/api", "/metrics", "/livez", "/readyz", "/health", "/openapi.json")
"""Paths whose errors are JSON. All others are pages."""


def for_program(path: str) -> bool:
    """Whether the path is for programs and not for people."""
    return path.startswith(_FOR_PROGRAMS)


def is_page(path: str) -> bool:
    """Whether the path is a page for people."""
    return not for_program(path) and path not in OPEN_PATHS
