"""Options that several commands share."""

from pathlib import Path

import click

config_file = click.option(
    "--config",
    "config_path",
    # The reader of the file says more than click's check.
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE",
    help="The YAML configuration. Default: $CELERY_MONITOR_CONFIG, or none.",
)
broker_url = click.option("--broker", metavar="URL", help="Overrides broker.url.")
store_url = click.option("--store", metavar="URL", help="Overrides store.url, such as sqlite:////path/monitor.db.")
web_port = click.option("--port", type=int, metavar="N", help="Overrides web.port.")
