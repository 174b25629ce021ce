"""The generated service on a machine: its tool, its pages, and what it looks like to its users."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess, Popen

from baking import TEMPLATE
from deploy.machine import Machine
from deploy.releases import PYTHON, VARIANTS, bake, pack
from releasing import wheels

# Seconds.
DEPLOY_PATIENCE = 300
ARTIFACTS = "/opt/artifacts"


@dataclass
class Answer:
    """A response: its status, 0 if there was none, its headers, by names in lower case, and its text."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass
class Service:
    """An installation of a project.

    Attributes:
        machine: the host.
        slug: the project's.
        host: the name that it answers to.
        secure: whether nginx speaks TLS for it.
    """

    machine: Machine
    slug: str = "my_service"
    host: str = "blog.test"
    secure: bool = False

    @property
    def root(self) -> str:
        """Its folder on the machine."""
        return f"/srv/{self.slug}"

    @property
    def script(self) -> str:
        """The tool, as it came with the first artifact."""
        return f"/opt/{self.slug}/deploy/release.py"

    def artifact(self, variant: str) -> str:
        """Where a variant's artifact lies on the machine."""
        return f"{ARTIFACTS}/{self.slug}/{variant.replace(' ', '-')}.tar.gz"

    def carry(self, artifacts: Path, wheels: Path) -> None:
        """Bring artifacts and wheels to the host, and unpack the tool that is in the first of them."""
        folder = f"{ARTIFACTS}/{self.slug}"
        self.machine.put(artifacts, folder)
        self.machine.put(wheels, f"{folder}/wheels")
        self.machine.run("mkdir", "-p", f"/opt/{self.slug}", check=True)
        self.machine.run("tar", "-xzf", self.artifact("first"), "-C", f"/opt/{self.slug}", check=True)

    def configure(self, **settings: str) -> None:
        """Write deploy.ini."""
        values = {"host": self.host, "user": "", "certificate": "", "upload_limit": "6m", "keep": "5", **settings}
        lines = "".join(f"{key} = {value}\n" for key, value in values.items())
        self.machine.write(f"{self.root}/deploy.ini", f"[deploy]\n{lines}")

    def tool(self, *words: str) -> CompletedProcess[str]:
        """Run `release.py`, and wait until it has ended."""
        return self.machine.run("python3", self.script, *words, timeout=DEPLOY_PATIENCE)

    def deploy(self, variant: str) -> CompletedProcess[str]:
        """Run `release.py deploy` with a variant's artifact, and the wheels beside it."""
        return self.tool("deploy", self.artifact(variant))

    def begin(self, *words: str) -> Popen[str]:
        """Start `release.py`."""
        return self.machine.spawn("python3", self.script, *words, timeout=DEPLOY_PATIENCE)

    def live(self) -> str:
        """The release that the link leads to."""
        return str(self.machine.path(f"{self.root}/app").readlink().name)

    def releases(self) -> list[str]:
        """The folders of all releases, the oldest first."""
        return sorted(path.name for path in self.machine.path(f"{self.root}/releases").iterdir())

    def serving(self) -> str:
        """The release that answers; empty if none does at its address. Which one it is, it says on its socket alone."""
        if self.get("/readyz").status != 200:
            return ""
        command = ["curl", "--silent", "--max-time", "30", "--unix-socket", f"{self.root}/run/gunicorn.sock"]
        answer = self.machine.run(*command, f"http://{self.host}/version").stdout
        return str(json.loads(answer)["release"] or "")

    def get(self, path: str, *options: str, host: str | None = None) -> Answer:
        """Ask for a page, as a browser does that finds the machine under the host's name.

        Args:
            path: of the page.
            options: of curl.
            host: another name than its own.
        """
        name = host or self.host
        scheme, port = ("https", 443) if self.secure else ("http", 80)
        command = ["curl", "--silent", "--insecure", "--include", "--path-as-is", "--max-time", "30"]
        command += ["--resolve", f"{name}:{port}:127.0.0.1", *options]
        # A proxy in front has spoken TLS, if nginx does not.
        command += [] if self.secure else ["--header", "X-Forwarded-Proto: https"]
        head, _, text = self.machine.run(*command, f"{scheme}://{name}{path}").stdout.partition("\n\n")
        lines = head.splitlines()
        headers: dict[str, str] = {}
        for line in lines[1:]:
            key, _, value = line.partition(": ")
            headers[key.lower()] = "\n".join(filter(None, (headers.get(key.lower()), value)))
        return Answer(int(lines[0].split()[1]) if lines else 0, headers, text)

    def doctor(self) -> dict[str, str]:
        """What `release.py doctor` finds wrong: what it says about it, by the title of the check."""
        result = self.tool("doctor")
        found = dict(re.findall(r"^FAILED +(.+)\n((?: {8}.*\n)+)", result.stdout, re.MULTILINE))
        assert result.returncode == bool(found), result.stdout + result.stderr
        return found

    def units(self, pattern: str) -> list[str]:
        """The service's units that are there now, running or failed."""
        command = ["systemctl", "list-units", "--all", "--plain", "--no-legend", f"{self.slug}{pattern}"]
        return [line.split()[0] for line in self.machine.run(*command).stdout.splitlines()]


@dataclass
class Visitor:
    """A person with a browser, who keeps cookies and fills in forms."""

    service: Service
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, *options: str) -> Answer:
        """Ask for a page."""
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self.service.get(path, *options, "--header", f"Cookie: {jar}")
        self.cookies.update(re.findall(r"^([^=]+)=([^;]*)", answer.headers.get("set-cookie", ""), re.MULTILINE))
        return answer

    def send(self, path: str, *, page: str | None = None, **fields: str) -> Answer:
        """Fill in a form.

        Args:
            path: where it goes to.
            page: that it is on, if another one.
            fields: what is put in; a value that starts with @ is a file on the machine.
        """
        shown = self.get(page or path)
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', shown.text)
        assert token, shown.text
        options: list[str] = []
        for name, value in {"csrf_token": token[1], **fields}.items():
            options += ["--form" if value.startswith("@") else "--form-string", f"{name}={value}"]
        return self.get(path, *options, "--referer", f"https://{self.service.host}{page or path}")


def installed(machine: Machine, folder: Path) -> tuple[Service, list[CompletedProcess[str]]]:
    """The service as a first deploy leaves it, on a bare machine, and how the commands ended that led there.

    Args:
        machine: the host.
        folder: takes the project and its artifacts.
    """
    service, project = Service(machine), bake(folder)
    for variant in VARIANTS:
        pack(project, variant, folder / "artifacts")
    service.carry(folder / "artifacts", wheels(project, PYTHON))
    machine.put(TEMPLATE / ".venv/bin/uv", "/usr/local/bin/uv")
    machine.path("/etc/nginx/sites-enabled/default").unlink()
    service.configure()
    return service, [service.tool("init"), service.deploy("first")]


def steps_of(output: str) -> dict[str, float]:
    """The seconds of each step that the tool has printed; a step that came twice counts twice."""
    seconds: dict[str, float] = {}
    for name, taken in re.findall(r"^(.+?) \.\.\. (?:failed after )?([\d.]+) s$", output, re.MULTILINE):
        seconds[name] = seconds.get(name, 0) + float(taken)
    return seconds
