"""prometheus_client's parsers, which have no types."""

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text


def openmetrics(text: str) -> list[Metric]:
    """The families of an exposition in OpenMetrics; raises ValueError when it breaks any rule of the format."""
    return list(parse_openmetrics(text))  # type: ignore[no-untyped-call]


def plain(text: str) -> list[Metric]:
    """The families of an exposition in the text format."""
    return list(parse_text(text))
