"""The program: its commands, its help and its exit codes."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from celery_monitor import cli
from celery_monitor.cli import main
from celery_monitor.errors import ConfigError, MonitorError, Problem, StoreUnusableError


def test_program_runs_as_a_module() -> None:
    """`python -m celery_monitor --version` prints the version and exits with 0."""
    command = [sys.executable, "-m", "celery_monitor", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0
    assert result.stdout.startswith("celery-monitor, version ")


def test_help_imports_no_command() -> None:
    """The help is fast: it imports neither the settings nor any adapter."""
    script = (
        "import sys\n"
        "from celery_monitor.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print([name for name in ('pydantic', 'yaml', 'celery', 'kombu', 'sqlalchemy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["config", "show"], ["config", "schema"], ["report", "-h"]]
)
def test_output_that_cannot_be_written(arguments: list[str]) -> None:
    """On a full disk every command exits with 1 and one line, without a traceback."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "celery_monitor", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def every_command() -> list[list[str]]:
    """The paths of all commands and groups."""
    found: list[list[str]] = [[]]
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        found.append([name])
        if isinstance(command, click.Group):
            found.extend([name, inner] for inner in command.list_commands(context))
    return found


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(path: list[str], option: str) -> None:
    """Every command and group explains itself and exits with 0."""
    result = CliRunner().invoke(main, [*path, option])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_help_tells_what_each_command_does() -> None:
    """The help lists every command with a sentence."""
    lines = CliRunner().invoke(main, ["--help"]).output.splitlines()
    for name in main.list_commands(click.Context(main)):
        assert any(line.startswith(f"  {name} ") and line.endswith(".") for line in lines), name


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["config", "nonsense"], ["config", "show", "-x"]])
def test_usage_error_exits_with_2(arguments: list[str]) -> None:
    """Wrong usage exits with 2 and explains the mistake on standard error."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (MonitorError("the disk is full; make room"), 1, ["error: the disk is full; make room"]),
        (StoreUnusableError("newer"), 1, ["error: newer"]),
        (
            ConfigError([Problem("web.port", "must be from 0 to 65535")]),
            2,
            ["error: the configuration has 1 problem:", "  web.port: must be from 0 to 65535"],
        ),
        (
            ConfigError([Problem("a", "b"), Problem("c", "d")]),
            2,
            ["error: the configuration has 2 problems:", "  a: b", "  c: d"],
        ),
    ],
)
def test_errors_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch, error: MonitorError, code: int, lines: list[str]
) -> None:
    """An error of this program is printed to standard error with an exit code and without a traceback."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli, "failing", failing, raising=False)
    monkeypatch.setattr(main, "get_command", lambda _context, _name: failing)
    result = CliRunner().invoke(main, ["failing"])
    assert result.exit_code == code
    assert result.stderr.splitlines() == lines
    assert not result.stdout
