"""Commands that end in the middle, by whatever cause."""

import json
from collections.abc import Sequence

import pytest
from deploy.service import DEPLOY_PATIENCE, Service

# Starts a command, and sends it a signal as soon as it begins a certain step, or, without one, any step that is not
# known yet. Prints that step, and the exit code.
STOPPER = r"""
import json, os, re, subprocess, sys
number, wanted, known, command = json.loads(sys.argv[1])
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
line, phase, sent = "", "", None
while byte := os.read(process.stdout.fileno(), 1):
    line = "" if byte == b"\n" else line + byte.decode()
    if line.endswith(" ... ") and sent is None:
        name = re.sub(r"\W*\d{14}\W*", "", line.removesuffix(" ... "))
        phase = {"artifact": "recovery: ", "unpack": ""}.get(name, phase)
        step = name if name in ("artifact", "unpack") else phase + name
        if step == wanted or (wanted is None and step not in known):
            process.send_signal(number)
            sent = step
print(json.dumps([sent, process.wait()]))
"""
KILL, TERMINATE, INTERRUPT = 9, 15, 2


def stop(
    service: Service, number: int, variant: str, *, at: str | None = None, known: Sequence[str] = ()
) -> tuple[str | None, int]:
    """Deploy a variant, and send the tool a signal.

    Args:
        service: the installation.
        number: of the signal.
        variant: what to deploy.
        at: the step at whose begin the signal is sent; by default, the first one that is not known yet.
        known: the steps that are.

    Returns:
        The step, None if it has come to an end without, and the exit code.
    """
    command = ["python3", service.script, "deploy", "--offline", service.artifact(variant)]
    argument = json.dumps([number, at, known, command])
    script = service.machine.run("python3", "-c", STOPPER, argument, timeout=DEPLOY_PATIENCE, check=True)
    step, code = json.loads(script.stdout)
    return step, code


def test_killed_at_any_step_the_site_answers_and_the_next_deploy_works(service: Service) -> None:
    known: list[str] = []
    live = {service.live()}
    while True:
        step, code = stop(service, KILL, "migration", known=known)
        if step is None:
            break
        known.append(step)
        live.add(service.live())
        assert service.serving() in live, step

    assert code == 0
    assert {"artifact", "unpack", "packages", "preflight", "migrations", "switch to", "web"} <= set(known)
    assert "recovery: web" in known
    assert service.serving() == service.live()
    assert service.units("@*") == service.units("-preflight@*") == []
    assert all(row["state"] != "never live" for row in json.loads(service.tool("releases", "--json").stdout))


@pytest.mark.parametrize("number", [INTERRUPT, TERMINATE])
@pytest.mark.parametrize("at", ["packages", "web"])
def test_told_to_stop_it_leaves_what_was_live(service: Service, number: int, at: str) -> None:
    before, releases = service.live(), service.releases()

    step, code = stop(service, number, "first", at=at)

    assert step == at
    assert code > 0
    assert service.serving() == service.live() == before
    assert at == "web" or service.releases() == releases
    assert service.units("@*") == service.units("-preflight@*") == []


def test_of_two_deploys_at_once_one_is_refused(service: Service) -> None:
    first = service.begin("deploy", "--offline", service.artifact("second"))
    assert first.stdout
    while not first.stdout.readline().startswith("unpack"):
        assert first.poll() is None

    second = service.deploy("first")

    assert second.returncode == 75, second.stdout
    assert "deploy" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    first.communicate(timeout=DEPLOY_PATIENCE)
    assert first.returncode == 0
    assert service.serving() == service.live()


def test_after_a_reboot_the_site_answers_by_itself(service: Service) -> None:
    assert service.deploy("first").returncode == 0
    live = service.live()

    service.machine.reboot()

    assert service.serving() == live
    assert service.doctor() == {}


def test_after_a_power_cut_in_the_middle_of_a_switch_the_site_answers_by_itself(service: Service) -> None:
    deploy = service.begin("deploy", "--offline", service.artifact("second"))
    assert deploy.stdout
    seen = ""
    while not seen.endswith("web ... "):
        seen += deploy.stdout.read(1)

    service.machine.cut_power()
    service.machine.start()

    assert service.serving() == service.live()
    assert service.deploy("first").returncode == 0
    assert service.serving() == service.live()
