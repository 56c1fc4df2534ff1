"""A private RabbitMQ broker with its own epmd, ready in 3 to 16 seconds.

The environment is built from nothing: the node must not read the machine's configuration, change its user,
or share the machine's epmd, which would outlive the test. ``RUNNING_UNDER_SYSTEMD`` makes the start script
exec the Erlang machine, so that the child's process id is the broker's and SIGKILL hits it.
"""

import base64
import os
import secrets
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from tests.servers.certificate import Certificate
from tests.servers.ports import answers, free_port
from tests.servers.process import ServerProcess, require

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_CONNECTION_OPEN = b"\x01\x00\x00\x00"  # the header of the first frame that a broker sends: method, channel 0


class _Epmd(ServerProcess):
    """Erlang's port mapper, in the foreground."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__("epmd", directory)
        self.port = port

    def command(self) -> Sequence[str]:
        return [require("epmd"), "-port", str(self.port), "-address", "127.0.0.1"]

    def ready(self) -> bool:
        return answers(self.port)


class RabbitMQ(ServerProcess):
    """A broker with the user guest and the vhost ``/``; ``new_vhost`` gives a test one of its own.

    ``vhost`` is the one of whatever names none.

    ``config`` is text for rabbitmq.conf. With ``certificate`` it also listens on ``tls_port``.
    """

    ready_timeout = 180.0
    stop_timeout = 20.0

    def __init__(self, directory: Path, config: str = "", certificate: Certificate | None = None) -> None:
        """Choose the ports; nothing is started yet."""
        super().__init__("rabbitmq", directory)
        self.port, self.tls_port, self._dist_port, epmd_port = (free_port() for _ in range(4))
        self.config = config
        self.vhost = "/"
        self.certificate = certificate
        self.node = f"test{self.port}@localhost"
        self._cookie = secrets.token_hex(10).upper()
        self._epmd = _Epmd(directory, epmd_port)

    def url(self, vhost: str | None = None) -> str:
        """The broker's URL for a client."""
        vhost = vhost or self.vhost
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{'' if vhost == '/' else quote(vhost, safe='')}"

    def tls_url(self) -> str:
        """The same for a client with TLS; the CA is ``certificate.certificate``."""
        return f"amqps://guest:guest@localhost:{self.tls_port}/{self.url().rpartition('/')[2]}"

    # --- the process

    def command(self) -> Sequence[str]:
        require("rabbitmq-server")
        return [str(_SERVER)]

    def environment(self) -> Mapping[str, str]:
        base = str(self.directory)
        return {
            "PATH": os.environ["PATH"],
            "HOME": base,
            "LANG": "C.UTF-8",
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{base}/mnesia",
            "RABBITMQ_LOG_BASE": f"{base}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{base}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{base}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{base}/rabbitmq",
            # One scheduler and no busy waiting: the processors belong to what is tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            " +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def launch(self) -> None:
        self._write_files()
        if not self._epmd.running:
            self._epmd.start()
        super().launch()

    def stop(self) -> int | None:
        code = super().stop()
        self._epmd.stop()
        return code

    def discard(self) -> None:
        self.kill()
        self._epmd.stop()

    def ready(self) -> bool:
        """An AMQP greeting is answered, which the listener does only once the node has booted; TLS is the last one."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                greeted = connection.recv(4) == _CONNECTION_OPEN
        except OSError:
            return False
        return greeted and (self.certificate is None or answers(self.tls_port))

    def _write_files(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "enabled_plugins").write_text("[].\n")
        cookie = self.directory / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        lines = ["log.console.level = warning", "disk_free_limit.absolute = 50MB", self.config]
        if self.certificate is not None:
            lines += [
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                f"ssl_options.cacertfile = {self.certificate.certificate}",
                f"ssl_options.certfile = {self.certificate.certificate}",
                f"ssl_options.keyfile = {self.certificate.key}",
            ]
        (self.directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")

    # --- control, inside of the node

    def eval(self, expressions: str, timeout: float = 30.0) -> str:
        """Evaluate Erlang expressions in the node and return the last one's value as text.

        Raises RuntimeError with Erlang's message when they fail.
        """
        done = subprocess.run(
            [
                require("erl_call"),
                "-sname",
                self.node,
                "-c",
                self._cookie,
                "-timeout",
                f"{timeout:.0f}",
                "-e",
            ],
            input=expressions.rstrip(".\n") + ".\n",
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout + 5,
            check=False,
        )
        if done.returncode != 0 or not done.stdout.startswith("{ok, "):
            message = f"erl_call: {done.stdout.strip()} {done.stderr.strip()}"
            raise RuntimeError(message)
        return done.stdout.strip().removeprefix("{ok, ").removesuffix("}")

    def new_vhost(self, name: str | None = None) -> str:
        """Make a vhost where guest may do everything, and return its URL."""
        name = name or f"test-{secrets.token_hex(6)}"
        self.eval(f"rabbit_vhost:add({_binary(name)}, {_binary('tests')})")
        self._permit("guest", name, ".*", ".*", ".*")
        return self.url(name)

    def delete_vhost(self, url: str) -> None:
        """Delete the vhost that ``new_vhost`` made, with all that is in it."""
        self.eval(f"rabbit_vhost:delete({_binary(_vhost(url))}, {_binary('tests')})")

    def limit(self, url: str, kind: str, number: int) -> None:
        """Limit the vhost of ``url``: ``max-connections`` or ``max-queues``."""
        limits = f"[{{{_binary(kind)}, {number}}}]"
        self.eval(f"rabbit_vhost_limit:set({_binary(_vhost(url))}, {limits}, {_binary('tests')})")

    def set_policy(
        self, url: str, pattern: str, definition: Mapping[str, int | str], *, operator: bool = False
    ) -> None:
        """Set a policy, or an operator policy, for the queues and exchanges of the vhost whose names match."""
        texts = (_vhost(url), "policy", pattern)
        values = (
            f"{{{_binary(key)}, {value if isinstance(value, int) else _binary(value)}}}"
            for key, value in definition.items()
        )
        self.eval(
            f"ok = rabbit_policy:{'set_op' if operator else 'set'}({', '.join(map(_binary, texts))}, "
            f"[{', '.join(values)}], 1, {_binary('queues')}, {_binary('tests')})"
        )

    def add_user(self, name: str, password: str, vhost: str, *, configure: str, write: str, read: str) -> str:
        """Make a user with these permissions (regular expressions) in ``vhost``, and return its URL.

        A user of that name that another test has left is replaced: the server is the session's.
        """
        actor = _binary("tests")
        self.eval(f"(catch rabbit_auth_backend_internal:delete_user({_binary(name)}, {actor}))")
        self.eval(f"rabbit_auth_backend_internal:add_user({_binary(name)}, {_binary(password)}, {actor})")
        self._permit(name, vhost, configure, write, read)
        return self.url(vhost).replace("guest:guest", f"{name}:{password}")

    def _permit(self, user: str, vhost: str, *patterns: str) -> None:
        arguments = ", ".join(_binary(text) for text in (user, vhost, *patterns, "tests"))
        self.eval(f"rabbit_auth_backend_internal:set_permissions({arguments})")

    def close_connections(self) -> int:
        """Close all AMQP connections from the broker's side, and return how many there were."""
        return int(
            self.eval(
                "Connections = rabbit_networking:connections(), "
                '[catch rabbit_networking:close_connection(C, "closed by the test") || C <- Connections], '
                "length(Connections)"
            )
        )

    def queues(self, vhost: str | None = None) -> dict[str, int]:
        """Count the messages in each queue of ``vhost``, ready and unacknowledged together."""
        text = self.eval(
            # Base64 for an answer that erl_call prints as it is, whatever the names hold.
            'binary_to_list(base64:encode(iolist_to_binary([[element(4, N), "\t", integer_to_binary(M), "\n"]'
            " || [{name, N}, {messages, M}] <- "
            f"rabbit_amqqueue:info_all({_binary(vhost or self.vhost)}, [name, messages])])))"
        )
        lines = base64.b64decode(text.strip('"[]')).decode().splitlines()
        return {name: int(count) for name, count in (line.rsplit("\t", 1) for line in lines)}

    def delete_queue(self, name: str, vhost: str | None = None) -> None:
        """Delete a queue and what it holds, whoever consumes it."""
        place = _binary(vhost or self.vhost)
        self.eval(
            f"{{ok, Q}} = rabbit_amqqueue:lookup({{resource, {place}, queue, {_binary(name)}}}), "
            f"rabbit_amqqueue:delete(Q, false, false, {_binary('tests')})"
        )


def _vhost(url: str) -> str:
    return unquote(url.rpartition("/")[2])


def _binary(text: str) -> str:
    """Write ``text`` as an Erlang binary, byte by byte, so that nothing in it needs quoting."""
    return f"<<{','.join(str(byte) for byte in text.encode())}>>"
