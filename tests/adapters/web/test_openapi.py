"""The API conforms to /openapi.json, tested with schemathesis."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from celery_monitor.adapters.store import open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.openapi import OPERATIONS
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.conftest import served
from tests.adapters.web.fleet import Fleet, usual

if TYPE_CHECKING:
    # Imported where it is used: each process of the tests would spend half a second on it.
    from schemathesis import BaseSchema, Case


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator["BaseSchema"]:
    """The description of a running site."""
    import schemathesis

    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('api')}/store.db", retention=86_400.0, fingerprint_window=1)
    store.start()
    store.commit(usual())
    with served(WebServer(Site(WebSettings(), Fleet(store).sources()), host="127.0.0.1", port=0)) as site:
        yield schemathesis.openapi.from_url(f"{site.url}/openapi.json")
    store.stop()


def ask(api: "BaseSchema", examples: int) -> dict[str, int]:
    """Call each operation this often, the same in each run. Returns the number of calls of each."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    asked: dict[str, int] = {}
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    for result in api.get_all_operations():
        assert isinstance(result, Ok)

        @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)
        @given(case=result.ok().as_strategy())
        def answers_as_described(case: "Case[Any]") -> None:
            asked[case.operation.label] = asked.get(case.operation.label, 0) + 1
            case.call_and_validate(checks=wanted)

        answers_as_described()
    return asked


def test_answers_are_as_described(api: "BaseSchema") -> None:
    """For any request inside or outside the description: no server error, and a described answer."""
    changes = {"POST /api/v1/silences", "DELETE /api/v1/silences/{id}"}
    assert ask(api, 5).keys() == {f"GET {path}" for path in OPERATIONS} | changes


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_answers_are_as_described_at_length(api: "BaseSchema") -> None:
    """The same, for longer."""
    assert sum(ask(api, 300).values()) > 100 * len(OPERATIONS)
