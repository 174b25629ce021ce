"""Servers for tests that have to see real ones: PostgreSQL, Redis and RabbitMQ.

Each listens on loopback, with a password, because every user of the machine can connect there. It has a folder of its
own, reads no settings of an installed server, and ends with pytest, whatever ends that.
"""

import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

HOST = "127.0.0.1"
PATIENCE = 60
# Debian keeps these away from PATH. Its rabbitmq-server on PATH is another one, which changes the user.
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
FOLDERS = ["/usr/lib/rabbitmq/bin", *map(str, POSTGRES), os.environ.get("PATH", os.defpath), "/usr/sbin"]
PATH = os.pathsep.join(FOLDERS)
# The kernel gives ports from 32768 on to clients: one below stays free while its server is down. Each process counts
# from another one.
PORTS = itertools.count(20000 + os.getpid() % 600 * 20)


def free_port() -> int:
    """A port that nobody listens on, another one each time."""
    for port in PORTS:
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise AssertionError


def find(program: str) -> str | None:
    """Where a program is, if it is installed."""
    return shutil.which(program, path=PATH)


class Server(ABC):
    """A server that a test may stop, and start again on the same port with the same data."""

    programs: ClassVar[dict[str, str]]
    """What it needs: programs, and the Debian packages that they are in."""
    scheme: ClassVar[str]
    username: ClassVar[str]
    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self) -> None:
        # Not in pytest's folder, which nobody else may enter: PostgreSQL runs as somebody else.
        self.folder = Path(tempfile.mkdtemp(prefix="test-server-", dir="/tmp"))
        self.password = f"{secrets.token_hex(8)}/@%"
        self.port = free_port()
        self.url = self.url_with(self.scheme, self.port)
        """The URL of the default database. Another one's name can be put behind it."""
        self.environment = {"HOME": str(self.folder), "LC_ALL": "C.UTF-8", "PATH": PATH}
        self.options: dict[str, Any] = {"cwd": self.folder, "env": self.environment, "stderr": subprocess.STDOUT}
        self.process: subprocess.Popen[bytes] | None = None

    def url_with(self, scheme: str, port: int) -> str:
        return f"{scheme}://{self.username}:{quote(self.password, safe='')}@{HOST}:{port}/"

    @abstractmethod
    def prepare(self) -> None:
        """Make what the first start needs."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program that serves until it is told to end, and its arguments."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it talks to clients."""

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers. It ends with the thread that has called this."""
        if not self.process or self.process.poll() is not None:
            program, *arguments = self.command()
            command = [str(find(program)), *arguments]
            # Without that program, killing pytest with SIGKILL would leave it running.
            if setpriv := find("setpriv"):
                command = [setpriv, "--pdeathsig", self.kill_signal.name, *command]
            with (self.folder / "log").open("wb") as log:
                # In a session of its own, where Ctrl-C reaches only pytest.
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, start_new_session=True, **self.options
                )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                self.kill()
                reason = f"no answer in {PATIENCE} seconds" if code is None else f"exit code {code}"
                tail = (self.folder / "log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self.command()[0]}: {reason}\n{tail}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it at once; what it has confirmed is kept."""
        self._end(self.kill_signal)

    def _end(self, number: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)

    def run(self, program: str, *arguments: str, stdin: str = "") -> str:
        """What another program of this server prints."""
        command = [str(find(program)), *arguments]
        result = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=False, **self.options
        )
        output: str = result.stdout
        if result.returncode:
            raise RuntimeError(f"{program}: exit code {result.returncode}\n{output[-3000:]}")
        return output


class Postgres(Server):
    """PostgreSQL, with nothing written for good: only the machine may not crash."""

    programs: ClassVar = {"postgres": "postgresql", "initdb": "postgresql"}
    scheme = "postgresql"
    username = "postgres"
    stop_signal = signal.SIGINT  # SIGTERM waits for clients to leave.
    kill_signal = signal.SIGQUIT  # SIGKILL leaves its shared memory behind.

    def prepare(self) -> None:
        if os.geteuid() == 0:
            # It refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        (self.folder / "password").write_text(self.password)
        login = [f"--username={self.username}", "--pwfile=password", "--auth=scram-sha-256"]
        self.run("initdb", "--pgdata=data", *login, "--encoding=UTF8", "--no-locale", "--no-sync")

    def command(self) -> list[str]:
        where = [f"listen_addresses={HOST}", f"port={self.port}", "unix_socket_directories="]
        light = ["fsync=off", "full_page_writes=off", "autovacuum=off", "shared_buffers=16MB"]
        return ["postgres", "-D", "data", *(f"--{setting}" for setting in (*where, *light))]

    def answers(self) -> bool:
        import psycopg  # Here, and redis below, because the tests that are not slow need not wait for it.

        with suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False

    def execute(self, statement: str) -> None:
        """Execute a statement that no transaction may hold, such as CREATE DATABASE."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())


class Broker(Server):
    """A broker, which listens for clients with TLS on a port of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tls_port = free_port()
        self.tls_url = self.url_with(f"{self.scheme}s", self.tls_port)
        self.certificate = self.folder / "certificate.pem"
        """What clients have to trust, for example as SSL_CERT_FILE."""
        self.key = self.folder / "key.pem"

    def prepare(self) -> None:
        self.run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=localhost", "-days", "2", "-out", str(self.certificate), "-keyout", str(self.key)),
            *("-addext", f"subjectAltName=IP:{HOST},DNS:localhost"),
            *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        )


class Redis(Broker):
    """Redis, with all it was told in a file."""

    programs: ClassVar = {"redis-server": "redis-server", "openssl": "openssl"}
    scheme = "redis"
    username = ""

    def prepare(self) -> None:
        super().prepare()
        settings = f"""
            bind {HOST}
            port {self.port}
            tls-port {self.tls_port}
            tls-cert-file {self.certificate}
            tls-key-file {self.key}
            tls-auth-clients no
            requirepass {self.password}
            save ""
            appendonly yes
            appendfsync no
        """
        (self.folder / "redis.conf").write_text(settings)

    def command(self) -> list[str]:
        return ["redis-server", "redis.conf"]

    def answers(self) -> bool:
        import redis

        with suppress(redis.ConnectionError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False

    def clear(self) -> None:
        """Remove everything from all databases."""
        import redis

        with redis.Redis.from_url(self.url) as client:
            client.flushall()


class RabbitMQ(Broker):
    """RabbitMQ, without plugins, and without epmd, which other Erlang programs would find it through.

    `erl_call` tells it in 0.03 seconds what `rabbitmqctl`, a program in Erlang itself, needs a second for.
    """

    programs: ClassVar = {"rabbitmq-server": "rabbitmq-server", "erl_call": "erlang-base", "openssl": "openssl"}
    scheme = "amqp"
    username = "tests"

    def prepare(self) -> None:
        super().prepare()
        self.erlang_port = free_port()
        settings = f"""[{{rabbit, [
            {{tcp_listeners, [{{"{HOST}", {self.port}}}]}},
            {{ssl_listeners, [{{"{HOST}", {self.tls_port}}}]}},
            {{ssl_options, [{{certfile, "{self.certificate}"}}, {{keyfile, "{self.key}"}}]}},
            {{default_user, <<"{self.username}">>}},
            {{default_pass, <<"{self.password}">>}}
        ]}}]."""
        (self.folder / "advanced.config").write_text(settings)
        files = {
            "ADVANCED_CONFIG_FILE": "advanced.config",
            "CONFIG_FILE": "none",
            "CONFIG_FILES": "none",
            "CONF_ENV_FILE": "none",
            "ENABLED_PLUGINS_FILE": "none",
            "LOG_BASE": "logs",
            "MNESIA_BASE": "data",
            "PID_FILE": "pid",
        }
        self.environment |= {f"RABBITMQ_{name}": f"{self.folder}/{file}" for name, file in files.items()}
        self.environment |= {
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_NODENAME": "tests@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-sname tests@localhost -start_epmd false +S 2"
            f" -erl_epmd_port {self.erlang_port} -kernel inet_dist_use_interface {{127,0,0,1}}",
            # The script becomes the server, instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def command(self) -> list[str]:
        return ["rabbitmq-server"]

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port), PATIENCE) as client:
            client.sendall(b"AMQP\0\0\x09\x01")
            # The first byte of a method: it asks the client to log in.
            return client.recv(1) == b"\x01"
        return False

    def evaluate(self, expression: str) -> None:
        """Let the server evaluate an Erlang expression, which should be `ok`."""
        answer = self.run("erl_call", "-address", f"{HOST}:{self.erlang_port}", "-e", stdin=f"{expression}.\n")
        if answer.strip() != "{ok, ok}":
            raise RuntimeError(f"{expression}: {answer}")

    def add_vhost(self, name: str) -> None:
        """Make a virtual host, which has queues of its own."""
        vhost, user, all_names = f'<<"{name}">>', f'<<"{self.username}">>', '<<".*">>, <<".*">>, <<".*">>'
        self.evaluate(
            f"ok = rabbit_vhost:add({vhost}, {user}),"
            f"rabbit_auth_backend_internal:set_permissions({user}, {vhost}, {all_names}, {user})"
        )

    def end_connections(self) -> None:
        """End all connections, as the server does with those that it hears nothing of."""
        self.evaluate(f'rabbit_networking:close_all_user_connections(<<"{self.username}">>, <<"the test ends it">>)')

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all its queues; its clients are disconnected."""
        self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"{self.username}">>)')


AnyServer = TypeVar("AnyServer", bound=Server)


def serve(kind: type[AnyServer]) -> Iterator[AnyServer]:
    """Start a server of this kind; in the end, kill it and remove its folder."""
    yield from running(kind())


def running(server: AnyServer) -> Iterator[AnyServer]:
    """Start a server; in the end, kill it and remove its folder."""
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)
