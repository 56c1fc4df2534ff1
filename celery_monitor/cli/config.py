"""``celery-monitor config``: checks, shows and describes the configuration."""

import json
import os
from pathlib import Path

import click
import yaml

from celery_monitor.adapters.channels import configured
from celery_monitor.app import App
from celery_monitor.cli.options import config_file
from celery_monitor.errors import ConfigError, StoreUnusableError
from celery_monitor.settings import Settings, load, redact_url
from celery_monitor.settings.layers import CONFIG_VARIABLE
from celery_monitor.settings.lint import warnings_of
from celery_monitor.settings.reference import markdown
from celery_monitor.settings.schema import schema


@click.group()
def config() -> None:
    """Check, show and describe the configuration."""


@config.command()
@config_file
@click.pass_context
def check(ctx: click.Context, config_path: Path | None) -> None:
    """Check the configuration, and summarize what it does.

    Problems are printed one per line, and the exit code is 2. Settings that are valid but probably a mistake are
    printed as warnings, which do not change the exit code.
    """
    try:
        settings = load(config_path)
        App(settings)  # without I/O: finds the errors that would prevent the daemon from starting
    except ConfigError as exc:
        for problem in exc.problems:
            click.echo(str(problem))
        ctx.exit(2)
    except StoreUnusableError as exc:
        click.echo(str(exc))
        ctx.exit(2)
    click.echo("configuration is valid")
    source = config_path or os.environ.get(CONFIG_VARIABLE)
    click.echo(f"  file       {source or 'none: defaults and environment'}")
    for name, text in _plan(settings).items():
        click.echo(f"  {name:<10} {text}")
    for warning in warnings_of(settings):
        click.echo(f"warning: {warning}")


@config.command()
@config_file
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def show(config_path: Path | None, form: str) -> None:
    """Print the effective configuration, defaults included, secrets redacted."""
    values = load(config_path).model_dump(mode="json", by_alias=True)
    if form == "json":
        click.echo(json.dumps(values, indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@config.command("schema")
def schema_() -> None:
    """Print the JSON Schema of the configuration, for editors and Helm."""
    click.echo(json.dumps(schema(), indent=2, ensure_ascii=False))


@config.command()
def reference() -> None:
    """Print every field with its default and meaning, as Markdown."""
    click.echo(markdown(), nl=False)


def _plan(settings: Settings) -> dict[str, str]:
    return {
        "fleet": settings.fleet,
        "broker": redact_url(settings.broker.url_source().get() or ""),
        "store": settings.store.redacted_url,
        "web": f"port {settings.web.port} of {settings.web.host}",
    } | {channel.name: channel.summary for channel in configured(settings)}
