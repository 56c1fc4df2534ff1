#!/usr/bin/env python3
"""Turn the dashboards of ``source/*.yaml`` into Grafana's JSON in ``dashboards/``.

A source says what a reader sees: variables, rows, and panels with title, description, unit, queries and thresholds.
What Grafana wants besides (ids, positions, the same colours for the same outcomes everywhere) is added here.
In queries ``%fleet%`` and ``%task%`` stand for the label filters of the variables.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
FLEET = 'job=~"$job", fleet=~"$fleet"'
FILTERS = {"%fleet%": FLEET, "%task%": f'{FLEET}, queue_name=~"$queue", name=~"$task"'}
WIDTH = 24
SCHEMA_VERSION = 39  # Grafana 10.4; Grafana 11 and 12 read it too
OPENING = 'celery_monitor_incidents_total{%fleet%, reason=~"opened|reopened|storm_opened"}'
INCIDENTS = f"sum by (reason) (increase({OPENING}[2m])) > 0"
COLORS = {
    "sent": "super-light-blue", "received": "light-blue", "started": "blue", "succeeded": "green",
    "failed": "red", "retried": "yellow", "rejected": "purple", "revoked": "#8e8e8e",
    "p50": "green", "p95": "orange", "p99": "red",
}  # fmt: skip
NOTHING = {"type": "special", "options": {"match": "nan", "result": {"text": "-", "index": 0}}}  # 0 ÷ 0
VARIABLES: dict[str, dict[str, Any]] = {
    "datasource": {"type": "datasource", "label": "Data source", "query": "prometheus"},
    "job": {"label": "Job", "query": "label_values(celery_monitor_build_info, job)", "all": ".+"},
    "fleet": {
        "label": "Fleet",
        "description": "The label `fleet`, where metrics.static_labels sets one: {fleet: shop}",
        "query": 'label_values(celery_monitor_build_info{job=~"$job"}, fleet)',
        "all": ".*",
    },
    "queue": {
        "label": "Queue",
        "query": "label_values(celery_task_received_total{%fleet%}, queue_name)",
        "all": ".*",
    },
    "task": {
        "label": "Task",
        "query": 'label_values(celery_task_received_total{%fleet%, queue_name=~"$queue"}, name)',
        "all": ".*",
    },
    "page": {
        "type": "textbox",
        "label": "Monitor's page",
        "description": "Where links to the monitor's own page lead: its web.external_url",
        "query": "http://localhost:9808",
    },
}


def filled(text: str) -> str:
    """``text`` with the filters in place."""
    for name, labels in FILTERS.items():
        text = text.replace(name, labels)
    return " ".join(text.split())


def variable(name: str, *, one: bool) -> dict[str, Any]:
    """A variable of the dashboard; ``one`` makes it a choice of one value."""
    spec = VARIABLES[name]
    common = {"name": name, "label": spec["label"], "description": spec.get("description"), "hide": 0}
    kind = spec.get("type", "query")
    if kind == "datasource":
        return common | {"type": kind, "query": spec["query"], "current": {}, "regex": ""}
    if kind == "textbox":
        value = {"text": spec["query"], "value": spec["query"]}
        return common | {"type": kind, "query": spec["query"], "current": value, "options": [value]}
    everything = {} if one else {"includeAll": True, "multi": True, "allValue": spec["all"]}
    current = {} if one else {"text": ["All"], "value": ["$__all"]}
    query = {"query": filled(spec["query"]), "refId": name}
    loading = {"refresh": 2, "sort": 1, "regex": ""}
    return common | loading | {
        "type": "query", "datasource": DATASOURCE, "query": query, "definition": query["query"], "current": current,
    } | everything  # fmt: skip


def target(query: Any, index: int, *, panel: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - text or mapping
    """A query of a panel: a text, or a mapping with ``expr`` and ``legend``."""
    spec = {"expr": query} if isinstance(query, str) else query
    instant = panel["type"] in {"table", "bargauge"} or (panel["type"] == "stat" and not panel.get("trend"))
    shape = {"table": "table", "heatmap": "heatmap"}.get(panel["type"], "time_series")
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": filled(spec["expr"]),
        "legendFormat": spec.get("legend", "__auto"),
        "instant": instant,
        "range": not instant,
        "format": shape,
        "exemplar": spec.get("exemplar", False),
    }


def thresholds(steps: dict[float, str] | None) -> dict[str, Any]:
    """Colours by value, from each key upwards."""
    below = {"color": "green", "value": None}
    given = [{"color": color, "value": value} for value, color in (steps or {}).items()]
    return {"mode": "absolute", "steps": [below, *given]}


def override(matcher: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """What is different for one field."""
    listed = [{"id": key, "value": value} for key, value in properties.items()]
    return {"matcher": {"id": matcher, "options": name}, "properties": listed}


def field_config(spec: dict[str, Any]) -> dict[str, Any]:
    """Units, colours and links of a panel's fields."""
    defaults: dict[str, Any] = {"unit": spec["unit"], "thresholds": thresholds(spec.get("thresholds"))}
    defaults |= {key: spec[key] for key in ("min", "max", "decimals", "noValue", "links", "mappings") if key in spec}
    if spec["type"] in {"stat", "table"}:
        defaults.setdefault("mappings", [NOTHING])
    by_threshold = spec["type"] in {"stat", "bargauge", "state-timeline"}
    defaults["color"] = {"mode": spec.get("color", "thresholds" if by_threshold else "palette-classic")}
    overrides = []
    if spec["type"] == "timeseries":
        bars = spec.get("style") == "bars"
        defaults["custom"] = {
            "drawStyle": "bars" if bars else "line",
            "fillOpacity": 80 if bars else 12,
            "lineWidth": 0 if bars else 2,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if spec.get("stack") else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line+area" if "thresholds" in spec else "off"},
        }
        shown = {query["legend"] for query in spec["queries"] if isinstance(query, dict) and "legend" in query}
        for name in sorted(shown & COLORS.keys()):
            color = {"color": {"mode": "fixed", "fixedColor": COLORS[name]}}
            overrides.append(override("byName", name, color))
    if spec["type"] == "state-timeline":
        defaults["custom"] = {"fillOpacity": 70, "lineWidth": 0}
    for name, properties in spec.get("columns", {}).items():
        overrides.append(override("byName", name, properties))
    return {"defaults": defaults, "overrides": overrides}


def options(spec: dict[str, Any]) -> dict[str, Any]:
    """How a panel of this type is drawn."""
    reduced = {"calcs": [spec.get("reduce", "lastNotNull")], "fields": "", "values": False}
    drawn: dict[str, dict[str, Any]] = {
        "stat": {
            "colorMode": "background_solid" if "thresholds" in spec else "value",
            "graphMode": "area" if spec.get("trend") else "none",
            "reduceOptions": reduced,
            "textMode": spec.get("text", "auto"),
            "justifyMode": "center",
        },
        "timeseries": {
            "legend": {"displayMode": "table" if spec.get("legend_table") else "list", "placement": "bottom",
                       "calcs": spec.get("legend_table", []), "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "bargauge": {
            "displayMode": "gradient", "orientation": "horizontal", "reduceOptions": reduced, "showUnfilled": False,
        },
        "table": {"showHeader": True, "cellHeight": "sm", "sortBy": spec.get("sort", [])},
        "heatmap": {
            "calculate": False, "cellGap": 1, "tooltip": {"mode": "single", "yHistogram": True},
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "reverse": False},
            "yAxis": {"unit": spec["unit"]}, "rowsFrame": {"layout": "auto"}, "filterValues": {"le": 1e-9},
        },
        "state-timeline": {"mergeValues": True, "rowHeight": 0.8, "showValue": "never",
                           "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}},
    }  # fmt: skip
    return drawn[spec["type"]]


def panel(spec: dict[str, Any], place: dict[str, int], number: int) -> dict[str, Any]:
    """One panel."""
    made = {
        "id": number,
        "type": spec["type"],
        "title": spec["title"],
        "description": " ".join(spec["description"].split()),
        "gridPos": place,
        "datasource": DATASOURCE,
        "targets": [target(query, index, panel=spec) for index, query in enumerate(spec["queries"])],
        "fieldConfig": field_config(spec),
        "options": options(spec),
    }
    if "renamed" in spec:
        hidden = {"Time": True, **dict.fromkeys(spec.get("hidden", []), True)}
        order = {name: index for index, name in enumerate(spec["renamed"])}
        organize = {"excludeByName": hidden, "renameByName": spec["renamed"], "indexByName": order}
        made["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": organize},
        ]
    return made


def layout(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All panels, row under row, each row filled from the left."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        if "title" in row:
            place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            panels.append({
                "id": len(panels) + 1, "type": "row", "title": row["title"], "collapsed": False,
                "gridPos": place, "panels": [],
            })  # fmt: skip
            y += 1
        x = 0
        for spec in row["panels"]:
            width = spec.get("width", WIDTH // len(row["panels"]))
            panels.append(panel(spec, {"x": x, "y": y, "w": width, "h": row["height"]}, len(panels) + 1))
            x += width
        if x != WIDTH:
            raise ValueError(f"the row of {row['panels'][0]['title']!r} is {x} wide, not {WIDTH}")
        y += row["height"]
    return panels


def links(uid: str, page: str) -> list[dict[str, Any]]:
    """To the other dashboards, and to the monitor's page."""
    dashboards = {
        "type": "dashboards", "title": "Celery", "tags": ["celery-monitor"], "asDropdown": False,
        "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link",
    }  # fmt: skip
    own = {
        "type": "link", "title": "Monitor's page", "url": page, "icon": "bolt", "tags": [], "targetBlank": True,
        "tooltip": "Failures, incidents and workers as the monitor itself shows them",
    }  # fmt: skip
    return [dashboards, own] if uid else []


def dashboard(source: dict[str, Any]) -> dict[str, Any]:
    """The whole of Grafana's JSON for one source."""
    incidents = {
        "name": "Incidents", "enable": True, "iconColor": "red", "datasource": DATASOURCE, "step": "60s",
        "expr": filled(INCIDENTS), "titleFormat": "Incident {{reason}}", "textFormat": "See the monitor's page",
        "target": {"expr": filled(INCIDENTS), "refId": "Incidents"},
    }  # fmt: skip
    builtin = {
        "builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
    }  # fmt: skip
    return {
        "uid": source["uid"],
        "title": source["title"],
        "description": source["description"],
        "tags": ["celery", "celery-monitor"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": source.get("from", "now-6h"), "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [builtin, incidents]},
        "links": links(source["uid"], source["page"]),
        "templating": {"list": [variable(name, one=name in source.get("one", [])) for name in source["variables"]]},
        "panels": layout(source["rows"]),
    }


def built() -> dict[Path, str]:
    """Every dashboard's file and its content."""
    sources = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((HERE / "source").glob("*.yaml"))}
    return {
        HERE / "dashboards" / f"{name}.json": json.dumps(dashboard(source), indent=2, ensure_ascii=False) + "\n"
        for name, source in sources.items()
    }


if __name__ == "__main__":
    for file, text in built().items():
        file.write_text(text)
        sys.stdout.write(f"{file.name}\n")
