#!/usr/bin/env python3
"""Put the parts of the chart in their places whose source is elsewhere in the project.

Helm reads nothing outside of a chart, so the chart holds copies: the rules of ``deploy/prometheus``, the
dashboards of ``deploy/grafana``, the schema of the settings, the secrets of channels. Run this after a change of any
of them, or of ``values.yaml`` or ``values.schema.yaml``; a test fails while a copy is stale. It needs the project
installed.
"""

import json
import sys
import typing
from pathlib import Path
from typing import Any

import yaml

from celery_monitor.channels import package
from celery_monitor.settings import Settings
from celery_monitor.settings.alerts import HELM_ON
from celery_monitor.settings.channels import entry_types
from celery_monitor.settings.secret import Secret

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "celery-monitor"
TABLE_BEGIN, TABLE_END = "<!-- values: written by helm/assemble.py -->", "<!-- end of values -->"


def values_schema() -> dict[str, Any]:
    """The schema of the values, with that of the settings as its ``config``."""
    schema: dict[str, Any] = yaml.safe_load((ROOT / "helm" / "values.schema.yaml").read_text())
    config = for_helm(Settings.model_json_schema())
    secrets = sorted({field for fields in channel_secrets().values() for field in fields})
    schema["definitions"]["channelSecret"]["properties"]["field"] = {"enum": secrets}
    # The settings' references are absolute, so their definitions stand at the root.
    schema["$defs"] = config.pop("$defs")
    schema["properties"]["config"] |= config
    return schema


def channel_secrets() -> dict[str, list[str]]:
    """Type of channels → the fields of its entries that are always secret: each can be given by a file instead.

    The URL of a webhook is not among them, because only some are secret: it may stand in ``config``.
    """
    fields = {name: package(name).ENTRY.model_fields for name in entry_types()}
    return {
        name: sorted(field for field, info in known.items() if Secret in types(info.annotation))
        for name, known in fields.items()
    }


def types(annotation: Any) -> set[Any]:  # noqa: ANN401 - any annotation
    """The types that an annotation consists of."""
    return {annotation}.union(*map(types, typing.get_args(annotation)))


def for_helm(schema: Any) -> Any:  # noqa: ANN401 - any JSON
    """``schema`` without the patterns that Helm's regular expressions (RE2) cannot read, described in plain text."""
    if isinstance(schema, dict):
        if "on" in schema.get("properties", {}):  # To Helm, which reads YAML 1.1, the key `on` is true.
            schema = schema | {"properties": schema["properties"] | {HELM_ON: schema["properties"]["on"]}}
        return {
            key: part.replace("``", "`") if key == "description" and isinstance(part, str) else for_helm(part)
            for key, part in schema.items()
            if not (key == "pattern" and isinstance(part, str) and "(?" in part)
        }
    return [for_helm(part) for part in schema] if isinstance(schema, list) else schema


def rules() -> dict[str, str]:
    """The rule files by name, without the files of their unit tests."""
    files = {path.name: path.read_text() for path in sorted((ROOT / "deploy" / "prometheus").glob("*.yml"))}
    return {name: text for name, text in files.items() if set(yaml.safe_load(text)) == {"groups"}}


def values_table() -> str:
    """A Markdown table of every value, its default and its meaning."""
    schema = yaml.safe_load((ROOT / "helm" / "values.schema.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows: list[str] = []

    def visit(properties: dict[str, Any], defaults: dict[str, Any], prefix: str) -> None:
        for name, part in properties.items():
            if "properties" in part and "description" not in part:
                visit(part["properties"], defaults[name], f"{prefix}{name}.")
            elif name in defaults:
                default = json.dumps(defaults[name])
                rows.append(f"| `{prefix}{name}` | `{default}` | {part['description']} |")

    visit(schema["properties"], values, "")
    return "\n".join(["| value | default | |", "| --- | --- | --- |", *rows])


def readme(current: str) -> str:
    """``current`` with a fresh table of values."""
    before, _, rest = current.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n\n{values_table()}\n\n{TABLE_END}{after}"


def assembled() -> dict[Path, str]:
    """Every generated file of the chart and its content."""
    files = {CHART / "files" / "rules" / name: text for name, text in rules().items()}
    for dashboard in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")):
        files[CHART / "files" / "dashboards" / dashboard.name] = dashboard.read_text()
    files[CHART / "files" / "channels" / "secrets.json"] = json.dumps(channel_secrets(), indent=2) + "\n"
    files[CHART / "values.schema.json"] = json.dumps(values_schema(), indent=2) + "\n"
    files[CHART / "README.md"] = readme((CHART / "README.md").read_text())
    return files


def main() -> None:
    """Write what has changed, and remove copies whose source is gone."""
    files = assembled()
    for copy in (CHART / "files").glob("*/*"):
        if copy not in files:
            copy.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
