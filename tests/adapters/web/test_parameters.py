"""Query parameters: accepted values, error messages, and what the page ignores."""

import re
from urllib.parse import quote

import httpx
import pytest

from tests.adapters.web.conftest import Served

DAY = "2026-11-23"


def failures(site: Served, query: str) -> httpx.Response:
    """The API's answer to a raw query string."""
    return site.get(f"/api/v1/failures?{query}")


def ids(answer: httpx.Response) -> list[str]:
    """The found IDs."""
    assert answer.status_code == 200, answer.text
    return [item["uuid"] for item in answer.json()["items"]]


def test_a_day_is_its_midnight_in_utc(usual_site: Served) -> None:
    """A day without a time means its midnight in UTC."""
    assert ids(failures(usual_site, f"since={DAY}")) == ["id-2", "id-1"]
    assert ids(failures(usual_site, f"until={DAY}")) == []
    assert ids(failures(usual_site, f"since={DAY}&until=2026-11-24")) == ["id-2", "id-1"]
    assert ids(failures(usual_site, "since=2026-11-24")) == []


@pytest.mark.parametrize(
    "zone", ["2026-11-23T15:04:30+01:00", "2026-11-23 15:04:30+01:00", "2026-11-23T15:04:30.000+0100"]
)
def test_a_plus_that_became_a_space(usual_site: Served, zone: str) -> None:
    """The + of a zone may be escaped or not."""
    assert ids(failures(usual_site, f"since={zone}")) == ids(failures(usual_site, f"since={quote(zone)}")) == ["id-2"]


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-23T14:00:00",
        "2026-11-23T14:00",
        "2026-11-23 14:00:00",
        "20261123T140000",
        "2026-11-23+02:00",
        "2026-11-23%2B02:00",
        "2026-11-23-05:00",
        "2026-11-23+0200",
    ],
)
def test_what_is_suggested_is_taken(usual_site: Served, value: str) -> None:
    """For any time without a zone, each suggestion is valid, escaped and unescaped."""
    answer = failures(usual_site, f"since={value}")
    assert answer.status_code == 400
    suggested = re.findall(r"\d{4}-\d\d-\d\dT[\d:]+(?:Z|[+-][\d:]+)", answer.json()["error"])
    assert suggested
    for one in suggested:
        assert one.startswith(f"{DAY}T")
        assert failures(usual_site, f"since={one}").status_code == 200
        assert failures(usual_site, f"since={quote(one)}").status_code == 200


def test_a_day_with_a_zone_is_understood(usual_site: Served) -> None:
    """The suggestion is that day's midnight in that zone, even if the + was not escaped."""
    for value in (f"{DAY}%2B02:00", f"{DAY}+02:00"):
        assert "2026-11-23T00:00:00+02:00" in failures(usual_site, f"since={value}").json()["error"]
    assert "2026-11-23T02:00:00Z" in failures(usual_site, f"since={DAY}+02:00").json()["error"]
    assert "%2B" in failures(usual_site, f"since={DAY}+02:00").json()["error"]


@pytest.mark.parametrize(
    "path", ["/", "/tasks/shop.charge", "/failures", "/failures/id-1", "/incidents", "/workers", "/reports/today"]
)
def test_pages_ignore_what_they_do_not_know(usual_site: Served, path: str) -> None:
    """Parameters added by mail and chat programs are ignored by pages and reported by the API."""
    assert usual_site.get(f"{path}?utm_source=chat&utm_source=mail&x={'x' * 3000}").status_code == 200
    assert failures(usual_site, "utm_source=chat").status_code == 400


def test_pages_still_refuse_wrong_values(usual_site: Served) -> None:
    """Known parameters are validated."""
    answer = usual_site.get("/failures?since=soon&utm_source=chat")
    assert answer.status_code == 400
    assert "since: must be a time" in answer.text
