"""Servers for tests, which need them real: PostgreSQL, Redis and RabbitMQ.

Each listens on loopback only, has a folder of its own, and asks for a password, because loopback is open to everybody
on the machine. Nothing of an installed server's settings and data is used, and nothing is left in the end.
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
from typing import ClassVar, TypeVar
from urllib.parse import quote

import psycopg
import redis

HOST = "127.0.0.1"
START_LIMIT = 60
# Debian keeps the servers' own programs away from PATH; its rabbitmq-server on PATH would change the user.
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
FOLDERS = [
    "/usr/lib/rabbitmq/bin",
    *map(str, POSTGRES),
    os.environ.get("PATH", os.defpath),
    "/usr/local/sbin",
    "/usr/sbin",
]
PATH = os.pathsep.join(FOLDERS)
# Where this program is missing, a server outlives tests that are killed with SIGKILL.
SETPRIV = shutil.which("setpriv", path=PATH)
# The kernel picks clients' ports from 32768 on, so nobody takes these while a server is down; each process has its own.
PORTS = itertools.count(20000 + os.getpid() % 600 * 20)


def free_port() -> int:
    """A port that nobody listens on; each call returns another one."""
    for port in PORTS:
        with suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            return port
    raise AssertionError


class Server(ABC):
    """A server that a test can stop, and start again on the same ports with the same data."""

    programs: ClassVar[dict[str, str]]
    """The programs that it needs, and the Debian packages that bring them."""
    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL
    user: str | None = None
    """Who runs it, if not the user who runs the tests."""

    def __init__(self) -> None:
        # Not in pytest's folder, which nobody but its user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="test-server-", dir="/tmp"))
        self.environment = {"HOME": str(self.folder), "LC_ALL": "C.UTF-8", "PATH": PATH}
        self.port, self.tls_port = free_port(), free_port()
        self.password = f"{secrets.token_hex(8)}/@%"
        self.certificate, self.key = self.folder / "certificate.pem", self.folder / "key.pem"
        self.process: subprocess.Popen[bytes] | None = None

    def url_of(self, scheme: str, user: str, port: int) -> str:
        """The URL up to the name of the database."""
        return f"{scheme}://{user}:{quote(self.password, safe='')}@{HOST}:{port}/"

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL up to the name of the database: with none it is the server's default one."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what the first start needs."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command that serves, in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether clients are served."""

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers. It ends with the thread that has started it."""
        if self.process and self.process.poll() is None:
            return
        log = self.folder / "log"
        command = [SETPRIV, "--pdeathsig", self.kill_signal.name, *self.command()] if SETPRIV else self.command()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                user=self.user,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                code = self.process.poll()
                self.kill()
                reason = f"no answer in {START_LIMIT} seconds" if code is None else f"exit code {code}"
                raise RuntimeError(f"{command[-1]}: {reason}\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order, and wait until it has."""
        self.end(self.stop_signal)

    def kill(self) -> None:
        """End it at once, as a power cut does for its clients."""
        self.end(self.kill_signal)

    def end(self, number: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(START_LIMIT)

    def run(self, *command: str, stdin: str = "") -> str:
        """Run one of the server's tools and return what it says."""
        result = subprocess.run(
            [str(find(command[0])), *command[1:]],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
            user=self.user,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout[-3000:]}")
        return result.stdout

    def make_certificate(self) -> None:
        """Make a certificate that clients can trust: its own authority, for this machine."""
        extensions = ["subjectAltName=IP:127.0.0.1,DNS:localhost", "keyUsage=critical,digitalSignature,keyCertSign"]
        self.run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=localhost", "-days", "2", "-out", str(self.certificate), "-keyout", str(self.key)),
            *(argument for extension in extensions for argument in ("-addext", extension)),
        )


class Postgres(Server):
    """PostgreSQL, whose databases need not survive the machine's end."""

    programs: ClassVar = {"postgres": "postgresql", "initdb": "postgresql"}
    stop_signal = signal.SIGINT  # SIGTERM would wait for the clients.
    kill_signal = signal.SIGQUIT  # After SIGKILL its shared memory would stay.

    @property
    def url(self) -> str:
        return self.url_of("postgresql", "postgres", self.port)

    def prepare(self) -> None:
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            self.user = next(user.pw_name for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody"))
            shutil.chown(self.folder, self.user)
        (self.folder / "password").write_text(self.password)
        options = ["--username=postgres", "--auth=scram-sha-256", "--pwfile=password"]
        self.run("initdb", "--pgdata=data", *options, "--encoding=UTF8", "--no-locale", "--no-sync")

    def command(self) -> list[str]:
        quick = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "shared_buffers=16MB"]
        where = [f"listen_addresses={HOST}", f"port={self.port}", "unix_socket_directories="]
        settings = [argument for setting in (*where, *quick) for argument in ("-c", setting)]
        return [str(find("postgres")), "-D", "data", *settings]

    def answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False

    def execute(self, statement: str) -> None:
        """Execute a statement outside of a transaction."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())


class Redis(Server):
    """Redis, with a port for TLS as well."""

    programs: ClassVar = {"redis-server": "redis-server", "openssl": "openssl"}

    @property
    def url(self) -> str:
        return self.url_of("redis", "", self.port)

    @property
    def tls_url(self) -> str:
        return self.url_of("rediss", "", self.tls_port)

    def prepare(self) -> None:
        self.make_certificate()
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
        return [str(find("redis-server")), "redis.conf"]

    def answers(self) -> bool:
        with suppress(redis.ConnectionError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False

    def clear(self) -> None:
        """Remove everything from all databases."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


class RabbitMQ(Server):
    """RabbitMQ, with a port for TLS as well.

    It needs no epmd, the daemon that knows where Erlang's programs listen: `erl_call` is told. That takes some
    hundredths of a second for what `rabbitmqctl` needs a second for.
    """

    programs: ClassVar = {"rabbitmq-server": "rabbitmq-server", "erl_call": "erlang-base", "openssl": "openssl"}

    @property
    def url(self) -> str:
        return self.url_of("amqp", "tests", self.port)

    @property
    def tls_url(self) -> str:
        return self.url_of("amqps", "tests", self.tls_port)

    def prepare(self) -> None:
        self.make_certificate()
        self.erlang_port = free_port()
        folder = self.folder
        settings = f"""[{{rabbit, [
            {{tcp_listeners, [{{"{HOST}", {self.port}}}]}},
            {{ssl_listeners, [{{"{HOST}", {self.tls_port}}}]}},
            {{ssl_options, [{{certfile, "{self.certificate}"}}, {{keyfile, "{self.key}"}}]}},
            {{default_user, <<"tests">>}},
            {{default_pass, <<"{self.password}">>}}
        ]}}]."""
        (folder / "advanced.config").write_text(settings)
        self.environment |= {
            "RABBITMQ_NODENAME": "tests@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-sname tests@localhost -start_epmd false"
            f" -erl_epmd_port {self.erlang_port} -kernel inet_dist_use_interface {{127,0,0,1}} +S 2",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILES": str(folder / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "none"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # The script becomes the server, instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def command(self) -> list[str]:
        return [str(find("rabbitmq-server"))]

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port), 5) as client:
            # A server of this protocol begins with a method; one of another tells its own and hangs up.
            client.sendall(b"AMQP\0\0\x09\x01")
            return client.recv(1) == b"\x01"
        return False

    def evaluate(self, expression: str) -> None:
        """Let the server evaluate an Erlang expression that is `ok`."""
        answer = self.run("erl_call", "-address", f"{HOST}:{self.erlang_port}", "-e", stdin=f"{expression}.\n")
        if answer.strip() != "{ok, ok}":
            raise RuntimeError(f"{expression}: {answer}")

    def add_vhost(self, name: str) -> None:
        """Make a virtual host, with queues of its own."""
        self.evaluate(f'rabbit_vhost:add(<<"{name}">>, <<"tests">>)')
        names, everything = f'<<"tests">>, <<"{name}">>', '<<".*">>, <<".*">>, <<".*">>'
        self.evaluate(f'rabbit_auth_backend_internal:set_permissions({names}, {everything}, <<"tests">>)')

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its clients are disconnected."""
        self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"tests">>)')


def find(program: str) -> str | None:
    """Where a program is, if it is installed."""
    return shutil.which(program, path=PATH)


AnyServer = TypeVar("AnyServer", bound=Server)


def serve(kind: type[AnyServer]) -> Iterator[AnyServer]:
    """Start a server, and end and remove it afterwards. Its programs have to be there."""
    server = kind()
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)
