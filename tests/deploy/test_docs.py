"""docs/production.md: what it says is to be done on a host, on one that has nothing yet."""

import json
import re
from pathlib import Path

from baking import TEMPLATE
from deploy.machine import Machine, running_machine
from deploy.releases import bake, pack, wheels
from deploy.service import DEPLOY_PATIENCE

TOOL = "/srv/my_service/app/deploy/release.py"
RUN = (
    *("init --host", "init --user", "--certificate", "deploy --offline", "rollback", "releases", "status", "doctor"),
    *("backup create", "backup restore", "systemctl restart", "systemd-tmpfiles", "journalctl"),
)
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
        machine.put(artifact, "/opt/dist/my_service-0.1.0.tar.gz")
        machine.put(wheels(project), "/opt/dist/wheels")
        give_certificate(machine)

        for block in blocks:
            if "backup create" in block:
                # A file that nginx has to be let in to.
                write = "umask 027; echo hello > /srv/my_service/shared/media/hello.txt"
                machine.run("runuser", "-u", "my_service", "--", "sh", "-c", write, check=True)
            machine.run("sh", "-euc", with_names_of(machine, block), timeout=DEPLOY_PATIENCE, check=True)

        machine.run(TOOL, "doctor", timeout=DEPLOY_PATIENCE, check=True)


def give_certificate(machine: Machine) -> None:
    """Put a certificate where the page says that one is; there is no network to ask somebody for one."""
    machine.path(str(CERTIFICATE)).mkdir(parents=True)
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=host"]
    files = ["-keyout", f"{CERTIFICATE}/privkey.pem", "-out", f"{CERTIFICATE}/fullchain.pem"]
    machine.run(*request, "-addext", f"subjectAltName=DNS:{CERTIFICATE.name}", *files, check=True)


def with_names_of(machine: Machine, block: str) -> str:
    """A block with what is there on the machine in the place of the page's release and backup."""
    if "releases/20261120120000" in block:
        rows = json.loads(machine.run(TOOL, "releases", "--json", check=True).stdout)
        block = block.replace("20261120120000", next(row["release"] for row in rows if row["state"] == "was live"))
    if "/opt/my_service-20261120T120000Z.tar.gz" in block:
        [backup] = machine.path("/srv/my_service/shared/backups").glob("my_service-*.tar.gz")
        machine.put(backup, "/opt/my_service-20261120T120000Z.tar.gz")
    return block
