"""docs/production.md: what it says is to be done on a host, on one that has nothing yet."""

import re
from pathlib import Path

from baking import TEMPLATE
from deploy.machine import running_machine
from deploy.releases import bake, pack, wheels
from deploy.service import DEPLOY_PATIENCE


def test_the_commands_for_the_host_work_as_printed(tmp_path: Path) -> None:
    project = bake(tmp_path)
    blocks = re.findall(
        r"^```sh host\n(.*?)^```", (project / "docs/production.md").read_text(), re.DOTALL | re.MULTILINE
    )
    for command in ("init --host", "deploy --offline", "rollback", "releases", "status", "doctor", "backup create"):
        assert any(command in block for block in blocks), command
    artifact = pack(project, "first", tmp_path)
    with running_machine() as machine:
        machine.put(TEMPLATE / ".venv/bin/uv", "/usr/local/bin/uv")
        machine.put(artifact, "/opt/dist/my_service-0.1.0.tar.gz")
        machine.put(wheels(project), "/opt/dist/wheels")

        for block in blocks:
            machine.run("sh", "-euc", block, timeout=DEPLOY_PATIENCE, check=True)

        answer = machine.run("curl", "-s", "-H", "Host: blog.example.com", "http://127.0.0.1/readyz", check=True)
        assert '"status":"ok"' in answer.stdout
