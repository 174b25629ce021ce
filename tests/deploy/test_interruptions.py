"""Commands that end in the middle, for whatever reason."""

import json
from collections.abc import Sequence

import pytest
from deploy.service import DEPLOY_PATIENCE, Service

# Starts a command, and sends it and its programs a signal, as a terminal does, as soon as it begins a certain step, or,
# without one, any step that is not known yet. Prints that step, and the exit code.
STOPPER = r"""
import json, os, re, subprocess, sys
number, wanted, known, command = json.loads(sys.argv[1])
send = os.kill if number == 9 else os.killpg
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
line, sent = "", None
while byte := os.read(process.stdout.fileno(), 1):
    line = "" if byte == b"\n" else line + byte.decode()
    if line.endswith(" ... ") and sent is None:
        step = re.sub(r" \d{14}", "", line.removesuffix(" ... "))
        if step == wanted or (wanted is None and step not in known):
            send(process.pid, number)
            sent = step
print(json.dumps([sent, process.wait()]))
"""
HANG_UP, INTERRUPT, KILL = 1, 2, 9


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
    argument = json.dumps([number, at, known, ["python3", service.script, "deploy", service.artifact(variant)]])
    script = service.machine.run("python3", "-c", STOPPER, argument, timeout=DEPLOY_PATIENCE, check=True)
    step, code = json.loads(script.stdout)
    return step, code


def test_killed_at_any_step_the_site_answers_and_the_next_deploy_works(service: Service) -> None:
    known: list[str] = []
    while True:
        step, code = stop(service, KILL, "migration", known=known)
        if step is None:
            break
        known.append(step)
        assert service.serving() != "", step

    assert code == 0
    assert {"unpack", "packages", "app folder", "check", "start", "queue and scheduler"} < set(known)
    assert service.serving() == service.live()
    assert service.units("@*") == [f"my_service@{service.live()}.service"]
    assert service.doctor() == {}


@pytest.mark.parametrize("at", ["packages", "start"])
def test_interrupted_it_leaves_what_was_live(service: Service, at: str) -> None:
    before, releases = service.live(), service.releases()

    step, code = stop(service, INTERRUPT, "second", at=at)

    assert (step, code) == (at, 130)
    assert service.serving() == service.live() == before
    assert service.releases() == releases
    assert service.units("@*") == [f"my_service@{before}.service"]


def test_a_lost_connection_does_not_stop_it(service: Service) -> None:
    before = service.live()
    assert stop(service, HANG_UP, "second", at="packages") == ("packages", 0)
    assert service.serving() == service.live() > before


def test_of_two_deploys_at_once_one_is_refused(service: Service) -> None:
    first = service.begin("deploy", service.artifact("second"))
    assert first.stdout
    while not first.stdout.readline().startswith("unpack"):
        assert first.poll() is None

    second = service.deploy("first")

    assert second.returncode == 75, second.stdout
    assert len(second.stderr.splitlines()) == 1
    first.communicate(timeout=DEPLOY_PATIENCE)
    assert first.returncode == 0
    assert service.serving() == service.live()


def test_after_a_reboot_the_site_answers_by_itself(service: Service) -> None:
    live = service.live()

    service.machine.reboot()

    assert service.serving() == live
    assert service.doctor() == {}


def test_after_a_power_cut_in_the_middle_of_a_switch_the_live_release_answers_alone(service: Service) -> None:
    deploy = service.begin("deploy", service.artifact("second"))
    assert deploy.stdout
    seen = ""
    while not seen.endswith("queue and scheduler ... "):
        seen += deploy.stdout.read(1)

    service.machine.cut_power()
    service.machine.start()

    assert service.serving() == service.live()
    assert service.units("@*") == [f"my_service@{service.live()}.service"]
    assert service.deploy("first").returncode == 0
    assert service.serving() == service.live()
