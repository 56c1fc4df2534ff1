"""Loads Settings from command line, environment and file, or reports all problems at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from celery_monitor.errors import ConfigError, Problem
from celery_monitor.settings import schema
from celery_monitor.settings.channels import of_channels, unknown_channels
from celery_monitor.settings.layers import CONFIG_VARIABLE, Layer, from_arguments, from_environment, from_file
from celery_monitor.settings.model import Settings
from celery_monitor.settings.problems import problems_of
from celery_monitor.settings.sign_in import problems_of_sign_in
from celery_monitor.settings.store import problems_of_store


def load(
    path: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The configuration: ``overrides`` over the environment over the YAML file over the defaults.

    Args:
        path: The YAML file; None takes the one that ``CELERY_MONITOR_CONFIG`` names, if any.
        overrides: From the command line: dotted paths to values (``{"web.port": 9000}``); None values are
            ignored.
        environ: The environment; None takes that of the process.

    Raises:
        ConfigError: With every problem, and without the value of any field.
    """
    layers = _layers(path, overrides or {}, os.environ if environ is None else environ)
    problems = [problem for layer in layers for problem in layer.problems]
    _resolve_duplicates(layers)
    settings = _validate(layers, problems)
    if settings is not None:
        problems.extend(
            [
                *unknown_channels(settings),
                *of_channels("problems", settings),
                *problems_of_sign_in(settings.web),
                *problems_of_store(settings.store),
            ]
        )
    if settings is None or problems:
        # Outside of any `except`: a ValidationError in the chain of causes would contain the values.
        raise ConfigError(problems)
    return settings


def _layers(path: Path | None, overrides: Mapping[str, object], environ: Mapping[str, str]) -> list[Layer]:
    """Highest precedence first."""
    layers = [from_arguments(overrides), from_environment(environ)]
    if file := path or environ.get(CONFIG_VARIABLE):
        layers.append(from_file(Path(file)))
    return layers


def _resolve_duplicates(layers: list[Layer]) -> None:
    """A secret in a higher layer overrides its file in a lower one, and vice versa: ``--broker`` overrides url_file."""
    for path, node in schema.sections():
        for name in (key for key in node["properties"] if f"{key}_file" in node["properties"]):
            twins = {name, f"{name}_file"}
            sections = [layer.section(path) for layer in layers if twins & layer.section(path).keys()]
            for lower in sections[1:]:
                for twin in twins:
                    lower.pop(twin, None)


def _validate(layers: list[Layer], problems: list[Problem]) -> Settings | None:
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _merge(values, layer.values)
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        origins = {path: name for layer in layers for path, name in layer.origins.items()}
        problems.extend(problems_of(exc, origins))
        return None


def _merge(lower: dict[str, Any], higher: dict[str, Any]) -> dict[str, Any]:
    """Merge two mappings recursively. Other values of ``higher`` override those of ``lower``."""
    merged = lower | higher
    for key in lower.keys() & higher.keys():
        if isinstance(lower[key], dict) and isinstance(higher[key], dict):
            merged[key] = _merge(lower[key], higher[key])
    return merged
