"""docs/production.md: what it says is to be done on a host, on one that has nothing yet."""

import re
from pathlib import Path

from baking import TEMPLATE
from deploy.machine import Machine, running_machine
from deploy.releases import PYTHON, bake, pack
from deploy.service import DEPLOY_PATIENCE
from releasing import wheels

RUN = ("init", "deploy", "rollback", "prune", "status", "doctor", "certificate =", "user create", "backup create")
# Where certbot puts them.
CERTIFICATE = Path("/etc/letsencrypt/live/blog.example.com")


def test_the_commands_for_the_host_work_as_printed(tmp_path: Path) -> None:
    project = bake(tmp_path)
    page = (project / "docs/production.md").read_text()
    blocks = re.findall(r"^```sh host\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    for command in RUN:
        assert any(command in block for block in blocks), command
    artifact = pack(project, "first", tmp_path)
    with running_machine() as machine:
        machine.put(TEMPLATE / ".venv/bin/uv", "/usr/local/bin/uv")
        machine.put(artifact, "/opt/dist/release.tar.gz")
        machine.put(wheels(project, PYTHON), "/opt/dist/wheels")
        give_certificate(machine)

        for block in blocks:
            machine.run("sh", "-euc", block, timeout=DEPLOY_PATIENCE, check=True)


def give_certificate(machine: Machine) -> None:
    """Put a certificate where the page says that one is; there is no network to ask an authority for one."""
    machine.path(str(CERTIFICATE)).mkdir(parents=True)
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=host"]
    files = ["-keyout", f"{CERTIFICATE}/privkey.pem", "-out", f"{CERTIFICATE}/fullchain.pem"]
    machine.run(*request, "-addext", f"subjectAltName=DNS:{CERTIFICATE.name}", *files, check=True)
