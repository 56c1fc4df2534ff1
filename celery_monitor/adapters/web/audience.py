"""Who a path is for: scrapers and probes, programs, or people."""

from typing import Final

OPEN_PATHS: Final = frozenset({"/metrics", "/livez", "/readyz", "/health", "/style.css", "/icon.svg"})
"""What needs no sign-in: scrapers and probes have none, and the page that asks for it has a style."""
_FOR_PROGRAMS: Final = ("/api", "/metrics", "/livez", "/readyz", "/health", "/openapi.json")
"""Paths whose errors are JSON. All others are pages."""


def for_program(path: str) -> bool:
    """Whether a program asks for it, and not a person."""
    return path.startswith(_FOR_PROGRAMS)


def is_page(path: str) -> bool:
    """Whether a person sees it as a page."""
    return not for_program(path) and path not in OPEN_PATHS
