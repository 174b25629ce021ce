"""The answer `container`: its image is built without a network, and run as it is meant to be; its other files agree.

There is no engine: a container is a process with mounts of its own, whose root is the image and cannot be written.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from baking import PROJECT_VENV, Bake, files_of, replace, run_in
from demo import PAGES, fetch, free_port
from deploy.machine import packaged_tree, roomy_folder
from deploy.releases import PYTHON
from releasing import commit, make, wheels

HOST = "127.0.0.1"
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}
# Arguments: image, volume, user, and then the variables and the command.
START = """
set -eu
root=$1 data=$2 user=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$data" "$root/data"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" env --ignore-environment --chdir="$@"
"""


def needed(*programs: str) -> None:
    """Skip the test, and say why, where it cannot run."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt install {' '.join(missing)}")


class Images:
    """A store of images of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "policy.json"
        self.policy.write_text(json.dumps(POLICY))

    def run(self, *arguments: str | Path) -> str:
        """What buildah prints."""
        places = [f"--root={self.folder}/storage", f"--runroot={self.folder}/run"]
        # Whoever builds has no network, and so have none of the commands in the container file.
        command = ["unshare", "--net", "buildah", "--storage-driver=vfs", *places, *arguments]
        result = run_in(self.folder, *command, environ={"TMPDIR": str(self.folder)})
        assert result.returncode == 0, result.stdout[-5000:]
        return result.stdout.strip()

    def add(self, tree: Path, tag: str) -> None:
        """Make an image of a system's files."""
        self.run("from", "--name", tag, "scratch")
        subprocess.run(["cp", "--archive", f"{tree}/.", self.run("mount", tag)], check=True)
        self.run("commit", "--quiet", "--rm", f"--signature-policy={self.policy}", tag, f"localhost/{tag}")

    def build(self, context: Path, file: Path, tag: str, *options: str) -> None:
        """Build an image."""
        isolated = ["--isolation=chroot", "--network=host", f"--signature-policy={self.policy}"]
        self.run("build", "--quiet", "--format=docker", *isolated, *options, f"--file={file}", f"--tag={tag}", context)


class Image:
    """An image that can be run, and the volume that all of its containers share."""

    def __init__(self, images: Images, tag: str, volume: Path) -> None:
        self.settings: dict[str, Any] = json.loads(images.run("inspect", "--type", "image", tag))["Docker"]["config"]
        images.run("from", "--quiet", "--name", "container", "--signature-policy", images.policy, tag)
        self.root = Path(images.run("mount", "container"))
        self.volume = volume
        # An engine fills a new volume with what the image has at its place.
        subprocess.run(["cp", "--archive", self.root / "data", volume], check=True)

    def command(self, *command: str, **environ: str) -> list[str]:
        """What starts a container, with the image's own command if there is none."""
        variables = [*self.settings["Env"], *(f"{name}={value}" for name, value in environ.items())]
        where = [str(self.root), str(self.volume), self.settings["User"], self.settings["WorkingDir"]]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*unshare, "sh", "-c", START, "start", *where, *variables, *(command or self.settings["Cmd"])]

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command until it ends."""
        return run_in(self.root, *self.command(*command, **environ))

    @contextmanager
    def running(self, log: Path, *command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """A container that runs meanwhile, and ends well when it is told to."""
        with log.open("wb") as output:
            process = subprocess.Popen(self.command(*command, **environ), stdout=output, stderr=output)
        try:
            yield process
            [first] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], Any], log: Path) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.fixture
def images() -> Iterator[Images]:
    """A store without images."""
    with roomy_folder("images-") as folder:
        yield Images(folder)


def test_the_image_serves_works_and_writes_only_where_it_may(bake: Bake, images: Images, tmp_path: Path) -> None:
    needed("buildah", "debootstrap", "git")
    if os.geteuid() != 0 or run_in(tmp_path, "unshare", "--mount", "true").returncode:
        pytest.skip("needs root that may mount, to run what it has built: sudo make test ARGS=tests/test_container.py")
    project = bake(deploy="container")
    commit(project)
    make(project, "release")
    shutil.copytree(wheels(project, PYTHON), project / "dist/wheels")
    images.add(packaged_tree(), "base")
    options = ["--build-arg", "BASE=localhost/base", "--build-arg", "PIP_NO_INDEX=1"]
    images.build(project / "dist", project / "deploy/Containerfile", "localhost/service", *options)
    image = Image(images, "localhost/service", images.folder / "data")

    # Who it is, and what it may write.
    assert image.run("id").stdout.strip() == "uid=10001(app) gid=10001(app) groups=10001(app)"
    assert image.run("sh", "-c", "touch /app/file /etc/file /file").stdout.count("Read-only file system") == 3
    assert image.run("sh", "-c", "touch /data/file /tmp/file && rm /data/file").returncode == 0
    assert image.run("pip", "--version").returncode == 127

    # Without an app folder it says what to do; with one it runs.
    refused = image.run("python", "queues.py")
    assert (refused.returncode, "python main.py appdir make" in refused.stdout) == (2, True), refused.stdout
    for command in ("appdir make", "db upgrade"):
        result = image.run("python", "main.py", *command.split())
        assert result.returncode == 0, result.stdout

    address, log = f"http://127.0.0.1:{(port := free_port())}", tmp_path / "web.log"
    health = image.settings["Healthcheck"]["Test"]
    assert health[0] == "CMD"
    assert image.run(*health[1:], PORT=str(port)).returncode != 0
    with image.running(log, PORT=str(port)):
        wait_for(lambda: fetch(f"{address}/readyz")[0] == 200, log)
        for path, expected in PAGES.items():
            status, text = fetch(address + path)
            assert (status, expected in text) == (200, True), path
        assert "/static/style.css?v=" in fetch(f"{address}/")[1]
        assert image.run(*health[1:], PORT=str(port)).returncode == 0

        # The other containers share the volume.
        queue, scheduler = tmp_path / "queue.log", tmp_path / "scheduler.log"
        with image.running(queue, "python", "queues.py"), image.running(scheduler, "python", "scheduler.py"):
            wait_for(lambda: "scheduler runs" in scheduler.read_text(), scheduler)
            # The first of these waits until the job is done.
            for command in ("schedule run remove_expired", "check"):
                result = image.run("python", "main.py", *command.split())
                assert result.returncode == 0, result.stdout


def test_a_body_reaches_the_service_when_all_of_it_is_there(bake: Bake, tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as service, ExitStack() as stack:
        text = (bake(deploy="container") / "deploy/Caddyfile").read_text()
        text = text.replace("web:8000", "{}:{}".format(*service.getsockname())).replace("{\n", "{\n\tadmin off\n", 1)
        (tmp_path / "Caddyfile").write_text(text)
        places = {f"XDG_{name}_HOME": str(tmp_path) for name in ("DATA", "CONFIG")}
        environ = {**os.environ, **places, "SITE_ADDRESS": f"http://{HOST}:{(port := free_port())}"}
        with (log := tmp_path / "log").open("wb") as output:
            command = [str(PROJECT_VENV / "bin/caddy"), "run", "--config", str(tmp_path / "Caddyfile")]
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=output)
        stack.callback(process.wait)
        stack.callback(process.kill)
        wait_for(lambda: "serving initial configuration" in log.read_text(), log)

        def send(text: bytes) -> socket.socket:
            client = stack.enter_context(socket.create_connection((HOST, port), 30))
            client.sendall(text.replace(b"HOST", f"{HOST}:{port}".encode()))
            return client

        def arrived() -> bytes:
            service.settimeout(30)
            connection, _ = service.accept()
            with connection:
                return connection.recv(9999)

        slow = send(b"POST /slow HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\n\r\nab")
        send(b"GET /next HTTP/1.1\r\nHost: HOST\r\n\r\n")
        assert arrived().startswith(b"GET /next ")
        slow.sendall(b"cd")
        assert arrived().startswith(b"POST /slow ")


def test_the_compose_file_is_valid(bake: Bake) -> None:
    needed("docker-compose")
    project = bake(deploy="container")
    (project / "dist").mkdir()
    command = ["docker-compose", "--file", "deploy/compose.yaml", "config", "--quiet"]

    result = run_in(project, *command, environ={"SITE_ADDRESS": "shop.test"})
    assert (result.returncode, result.stdout) == (0, "")
    assert "SITE_ADDRESS" in run_in(project, *command).stdout

    replace(project / "deploy/compose.yaml", "read_only:", "readonly:")
    assert run_in(project, *command, environ={"SITE_ADDRESS": "shop.test"}).returncode != 0


def test_containers_may_do_no_more_than_they_need_and_only_the_proxy_is_published(bake: Bake) -> None:
    compose: dict[str, Any] = yaml.safe_load((bake(deploy="container") / "deploy/compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"proxy": ["80:80", "443:443"]}


def test_every_variable_is_a_setting_and_every_command_is_there(bake: Bake, tmp_path: Path) -> None:
    project = bake(deploy="container")
    compose: dict[str, Any] = yaml.safe_load((project / "deploy/compose.yaml").read_text())
    ours = {name: service for name, service in compose["services"].items() if "build" in service}
    assert ours.keys() == {"web", "queue", "scheduler", "app-folder", "migrate"}
    for name, service in ours.items():
        assert (project / service.get("command", ["", "web.py"])[1]).is_file(), name
    secret = tmp_path / "database_url"
    secret.write_text("postgresql://service:unknown@database/service")
    environ = {"APP_ENV": "production", "APP_DATABASE__URL__FILE": str(secret), "APP_DIR": str(tmp_path)}
    shown = run_in(
        project, PROJECT_VENV / "bin/python", "main.py", "config", "show", environ=ours["web"]["environment"] | environ
    )
    assert shown.returncode == 0, shown.stdout
    values = dict(line.split("  ")[0].split(" = ") for line in shown.stdout.splitlines() if " = " in line)
    assert values["database.url"].endswith('@database/service"')
    assert values["queue.url"] == '"redis://redis:6379/0"'
    assert values["web.trusted_proxies"] == "1"
    assert json.loads(values["security.trusted_hosts"])[1:] == ["web", "127.0.0.1"]


@pytest.mark.parametrize("deploy", ["systemd", "container", "none"])
def test_an_answer_leaves_no_trace_of_the_others(bake: Bake, deploy: str) -> None:
    project = bake(deploy=deploy)
    assert (project / "deploy").is_dir() is (deploy != "none")
    words = {
        "systemd": r"release\.py|production\.md|deploy/(nginx|systemd|doctor)",
        "container": r"Containerfile|compose\.yaml|containers\.md|Caddyfile",
    }
    for other in words.keys() - {deploy}:
        for path in files_of(project):
            text = (project / path).read_bytes().decode(errors="replace")
            assert not re.search(words[other], path + text), path
