"""A private Redis without persistence, ready in some 20 ms, and a Sentinel for it."""

import itertools
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.servers.certificate import Certificate
from tests.servers.ports import free_port
from tests.servers.process import ServerProcess, require

_DATABASES = 512


def _ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


class Redis(ServerProcess):
    """A Redis on ``port``; with ``certificate`` also with TLS on ``tls_port``. A restart forgets everything.

    ``options`` are further command-line options, such as ``("--client-output-buffer-limit", "pubsub 1mb 0
    0")``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        password: str = "",
        certificate: Certificate | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Choose the ports; nothing is started yet."""
        super().__init__("redis", directory)
        self.port = free_port()
        self.tls_port = free_port()
        self.password = password
        self.certificate = certificate
        self.options = tuple(options)
        self._numbers = itertools.count(1)

    def url(self, database: int = 0) -> str:
        """The URL for a client."""
        return f"redis://{self._credentials}127.0.0.1:{self.port}/{database}"

    def tls_url(self, database: int = 0) -> str:
        """The URL for a client with TLS; the CA is ``certificate.certificate``."""
        return f"rediss://{self._credentials}localhost:{self.tls_port}/{database}"

    def new_database(self) -> str:
        """Return the URL of a database that no other test uses.

        Its pub/sub is apart too: kombu puts the database's number before the channels' names.
        """
        number = next(self._numbers)
        assert number < _DATABASES, "more tests than databases: raise _DATABASES"
        return self.url(number)

    @property
    def _credentials(self) -> str:
        return f":{self.password}@" if self.password else ""

    def command(self) -> Sequence[str]:
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        options += ["--daemonize", "no", "--save", "", "--appendonly", "no", "--databases", str(_DATABASES)]
        if self.password:
            options += ["--requirepass", self.password]
        if self.certificate is not None:
            options += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", str(self.certificate.certificate)]
            options += ["--tls-key-file", str(self.certificate.key)]
            options += ["--tls-ca-cert-file", str(self.certificate.certificate)]
        return [require("redis-server"), *options, *self.options]

    def ready(self) -> bool:
        return _ping(self.port)

    def execute(self, *arguments: str) -> bytes:
        """Send one command and return the raw beginning of the reply (at most 64 KiB)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            if self.password:
                connection.sendall(_resp("AUTH", self.password))
                connection.recv(64)
            connection.sendall(_resp(*arguments))
            return connection.recv(65_536)

    def close_connections(self) -> int:
        """Close all clients' connections from the server's side, and return how many there were."""
        replies = [self.execute("CLIENT", "KILL", "TYPE", kind) for kind in ("normal", "pubsub")]
        return sum(int(reply.strip().removeprefix(b":")) for reply in replies)


class Sentinel(ServerProcess):
    """A Redis Sentinel that watches ``master`` under the name ``service``; with ``certificate`` by TLS only.

    ``config`` are further lines of its configuration file.
    """

    def __init__(
        self,
        directory: Path,
        master: Redis,
        service: str = "main",
        *,
        certificate: Certificate | None = None,
        config: Sequence[str] = (),
    ) -> None:
        """Choose the port; nothing is started yet."""
        super().__init__("sentinel", directory)
        self.port = free_port()
        self.master = master
        self.service = service
        self.certificate = certificate
        self.config = tuple(config)

    def url(self, database: int = 0) -> str:
        """The URL for kombu, together with the transport option ``master_name``."""
        password = f":{self.master.password}@" if self.master.password else ""
        return f"sentinel://{password}127.0.0.1:{self.port}/{database}"

    def command(self) -> Sequence[str]:
        return [require("redis-server"), str(self.directory / "sentinel.conf"), "--sentinel"]

    def launch(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        lines = [f"port {0 if self.certificate else self.port}", "bind 127.0.0.1", f"dir {self.directory}"]
        if self.certificate is not None:
            lines += [f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {self.certificate.certificate}", f"tls-key-file {self.certificate.key}"]
            lines.append(f"tls-ca-cert-file {self.certificate.certificate}")
        lines.append(f"sentinel monitor {self.service} 127.0.0.1 {self.master.port} 1")
        if self.master.password:
            lines.append(f"sentinel auth-pass {self.service} {self.master.password}")
        lines += self.config
        (self.directory / "sentinel.conf").write_text("\n".join(lines) + "\n")
        super().launch()

    def ready(self) -> bool:
        if self.certificate is None:
            return _ping(self.port)
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError:
            return False
        return True


def _resp(*arguments: str) -> bytes:
    parts = [argument.encode() for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
