"""A private PostgreSQL without fsync, on a loopback port; an empty database costs some 30 ms."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.ports import answers, free_port
from tests.servers.process import ServerProcess, require
from tests.servers.waiting import wait_until

_HBA = """\
local all all trust
host all guarded 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "autovacuum": "off",
    "max_worker_processes": "0",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


def tool(name: str) -> str:
    """The path of one of the server's programs, which Debian keeps out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else require(name)


def as_user() -> list[str]:
    """The prefix that runs a command as another user: the server refuses root."""
    if os.getuid() != 0:
        return []
    user = _user()
    return [require("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def template(directory: Path) -> Path:
    """The files of an empty cluster, created by the first test process that needs them."""
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / "cluster"
    with (directory / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not made.exists():
            new = Path(tempfile.mkdtemp(prefix="celery-monitor-initdb-"))
            _give(new)
            options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]
            command = [*as_user(), tool("initdb"), *options, "--wal-segsize=1", "-D", str(new / "data")]
            subprocess.run(command, cwd=new, check=True, capture_output=True)
            shutil.move(new / "data", made)
            new.rmdir()
    return made


def _give(path: Path) -> None:
    """Change the owner of a directory and its contents to the server's user."""
    if os.getuid() == 0:
        user = _user()
        for each in [path, *path.rglob("*")]:
            os.chown(each, user.pw_uid, user.pw_gid)


class PostgreSQL(ServerProcess):
    """A server on ``port``, beginning as a copy of the cluster ``empty``. ``options``: settings by name.

    The user ``monitor`` owns the databases; ``guarded`` needs the password ``secret``.
    """

    stop_signal = signal.SIGINT

    def __init__(self, empty: Path, **options: str) -> None:
        """Its own directory in the system's temporary one: pytest's can be entered by root only."""
        super().__init__("postgresql", Path(tempfile.mkdtemp(prefix="celery-monitor-postgresql-")))
        self.port = free_port()
        self._empty = empty
        self._settings = {
            **_SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            **options,
        }
        self._numbers = itertools.count(1)

    def url(self, database: str, user: str = "monitor") -> str:
        """For a client."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def command(self) -> Sequence[str]:
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        die_with_parent = ["--pdeathsig", "KILL", "--"] if (user := as_user()) else []
        return [*user, *die_with_parent, tool("postgres"), "-D", str(self._data), *settings]

    def launch(self) -> None:
        if not self._data.exists():
            shutil.copytree(self._empty, self._data)
            (self._data / "pg_hba.conf").write_text(_HBA)
            _give(self.directory)
        super().launch()

    def ready(self) -> bool:
        try:
            self.execute(
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'monitor') THEN "
                "CREATE ROLE monitor LOGIN; CREATE ROLE guarded LOGIN PASSWORD 'secret'; END IF; END $$"
            )
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.url(database, "postgres"), autocommit=True, connect_timeout=5) as admin:
            for statement in statements:
                admin.execute(statement)

    def query(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Rows of a query by the superuser."""
        with psycopg.connect(self.url(database, "postgres"), autocommit=True, connect_timeout=5) as admin:
            return admin.execute(statement).fetchall()

    def new_database(self, owner: str = "monitor") -> str:
        """The URL of a new empty database."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {owner}")
        return self.url(name)

    def pause(self) -> None:
        """Freeze it; each connection is a process in its own group."""
        self._to_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._to_all(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to all of its processes; a remaining one would prevent the next start."""
        children: list[int] = []
        if self.running:
            self.signal(signal.SIGSTOP)  # it makes no new ones
            children = self._children()
            self._to_all(signal.SIGKILL)
        super().kill()
        wait_until(lambda: not any(map(_lives, children)), 60, what="the end of PostgreSQL")

    def close(self) -> None:
        """End it, and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _to_all(self, number: int) -> None:
        for pid in (self.pid, *self._children()):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def _data(self) -> Path:
        return self.directory / "data"


def _lives(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class PgBouncer(ServerProcess):
    """A pooler before ``server``, with ``size`` connections for each database; ``mode``: transaction at first."""

    stop_signal = signal.SIGINT

    def __init__(self, server: PostgreSQL, directory: Path, size: int = 3) -> None:
        """Choose the port; nothing is started yet. By default there are fewer connections than the clients have."""
        super().__init__("pgbouncer", directory)
        self._size = size
        self.mode = "transaction"
        self.server = server
        self.port = free_port()

    def url(self, database: str) -> str:
        """For a client."""
        return f"postgresql://monitor@127.0.0.1:{self.port}/{database}"

    def command(self) -> Sequence[str]:
        die_with_parent = ["--pdeathsig", "KILL", "--"] if (user := as_user()) else []
        return [*user, *die_with_parent, require("pgbouncer"), str(self.server.directory / "pgbouncer.ini")]

    def launch(self) -> None:
        users = self.server.directory / "users.txt"
        users.write_text('"monitor" ""\n')
        (self.server.directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {self.mode}\ndefault_pool_size = {self._size}\n"
            "server_login_retry = 1\n"
        )
        super().launch()

    def ready(self) -> bool:
        return answers(self.port)
