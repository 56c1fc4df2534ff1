"""Options that several commands share."""

from pathlib import Path

import click

config_file = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The YAML configuration. Default: $CELERY_MONITOR_CONFIG, or none.",
)
