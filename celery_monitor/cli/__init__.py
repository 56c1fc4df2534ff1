"""The command line: argv and environment become Settings, errors become exit codes.

A command's module is imported when the command is called, so that ``--help`` and ``healthcheck`` start fast.
"""

import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final

import click

from celery_monitor.cli import output
from celery_monitor.errors import ConfigError, DeliveryError, MonitorError


@dataclass(frozen=True, slots=True)
class _Entry:
    target: str
    """``module:attribute``, below this package."""
    summary: str


_COMMANDS: Final = {
    "run": _Entry("run:run", "Run the daemon."),
    "config": _Entry("config:config", "Check, show and describe the configuration."),
    "report": _Entry("report:report", "Print or mail the report of a day."),
    "notify": _Entry("notify:notify", "Send a test message to a channel."),
    "outbox": _Entry("outbox:outbox", "List pending and failed notifications, and retry them."),
    "schedules": _Entry("schedules:schedules", "Find tasks that run regularly."),
    "silence": _Entry("silence:silence", "Silence the notifications of tasks for a limited time."),
    "store": _Entry("store:store", "Copy one store to another (SQLite, PostgreSQL)."),
    "doctor": _Entry("doctor:doctor", "Check everything the daemon needs and suggest fixes."),
    "events": _Entry("events:events", "Show the live stream of events, one per line."),
    "demo": _Entry("demo:demo", "Run a demo fleet and the monitor in one process."),
    "healthcheck": _Entry("healthcheck:healthcheck", "Check whether the running daemon is alive."),
}


class _Failed(click.ClickException):
    """An error that the user can fix: prints its text without a traceback and sets the exit code."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {self.format_message()}", file=file, err=file is None)


class _Misused(_Failed):
    exit_code = 2


class _LazyGroup(click.Group):
    """Imports a command when it is called, and turns errors of all commands into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for name, entry in _COMMANDS.items() if importlib.util.find_spec(_module(entry))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        entry = _COMMANDS[cmd_name]
        module = sys.modules.get(_module(entry))
        if module is None:
            with _without_gc():
                module = importlib.import_module(_module(entry))
        command: click.Command = getattr(module, entry.target.partition(":")[2])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name].summary) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - as in click
        try:
            return super().main(*args, **extra)
        except OSError as exc:
            if exc.errno not in output.FULL:
                raise
            output.give_up()
            click.echo(f"error: cannot write the output: {exc.strerror}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        try:
            return super().invoke(ctx)
        except ConfigError as exc:
            raise _Misused(_all_problems(exc)) from exc
        except DeliveryError as exc:
            raise _Failed(f"{exc}: {exc.remedy}" if exc.remedy else str(exc)) from exc
        except MonitorError as exc:
            raise _Failed(str(exc)) from exc


@contextmanager
def _without_gc() -> Iterator[None]:
    """Disable garbage collection during an import: scanning the imported objects takes a third of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _module(entry: _Entry) -> str:
    return f"{__name__}.{entry.target.partition(':')[0]}"


def _all_problems(error: ConfigError) -> str:
    count = len(error.problems)
    head = f"the configuration has {count} problem{'s' * (count > 1)}:"
    return "\n".join([head, *(f"  {problem}" for problem in error.problems)])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="celery-monitor", prog_name="celery-monitor")
def main() -> None:
    """Exact counts of a Celery fleet's task events, as metrics, incidents and a daily mail.

    Exit codes: 0 done, 1 failed, 2 usage or configuration error, 70 ended by the watchdog (no progress).
    """
