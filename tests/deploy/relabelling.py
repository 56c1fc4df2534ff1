"""The relabelling of a ServiceMonitor as Prometheus reads it, and its effect."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_NAMES = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def for_prometheus(rules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rules as ``metric_relabel_configs``."""
    return [{_NAMES.get(key, key): value for key, value in rule.items()} for rule in rules]


def relabelled(labels: Mapping[str, str], rules: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    """The labels of a series after the rules, or None if it is dropped. Supports replace, drop and labeldrop."""
    found = dict(labels)
    for rule in rules:
        action, regex = rule.get("action", "replace"), re.compile(rule.get("regex", "(.*)"), re.DOTALL)
        if action == "labeldrop":
            found = {name: value for name, value in found.items() if not regex.fullmatch(name)}
            continue
        match = regex.fullmatch(";".join(found.get(name, "") for name in rule["sourceLabels"]))
        if match is None:
            continue
        if action == "drop":
            return None
        assert action == "replace"
        groups = ("", *match.groups(""))  # a group that the regex does not have is empty, as in Go
        text = rule.get("replacement", "$1")
        value = re.sub(r"\$(\d)", lambda group: (*groups, *[""] * 9)[int(group[1])], text)  # noqa: B023
        found[rule["targetLabel"]] = value
        found = {name: value for name, value in found.items() if value}
    return found
