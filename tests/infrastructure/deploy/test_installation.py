"""What an installation is, and how its host is asked, as far as it needs neither root nor systemd."""

import http.client
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config import ROOT
from deploy import installation
from deploy.installation import Failure, Site, Steps


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An installation in a temporary folder, without any release."""
    for name in ("run", "shared/logs"):
        (tmp_path / name).mkdir(parents=True)
    return Site("shop", host="shop.test", root=tmp_path)


def test_the_page_explains_each_exit_code_and_no_other() -> None:
    page = (ROOT / "docs/production.md").read_text(encoding="utf-8")
    table = page[page.index("| code | means") :].split("\n\n")[0]
    names = ("FINDINGS", "BAD_INPUT", "PREFLIGHT", "MIGRATION", "ROLLED_BACK", "DOWN", "LOCKED", "INTERRUPTED")
    codes = [0, *(getattr(installation, name) for name in names)]
    assert [int(code) for code in re.findall(r"(?m)^\| (\d+) ", table)] == codes


def test_an_option_that_cannot_be_used_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Site(
        "shop",
        host="shop_test/",
        user="nobody-there",
        group="nobody-there",
        certificate="/nowhere.pem",
        upload_limit="much",
        root=site.root,
    )
    monkeypatch.setenv("PATH", str(site.root))
    problems = "\n".join(installation.problems_of(wrong))
    for found in ("--host: found 'shop_test/'", "--user: found", "--group: found", "found one of them, expected both"):
        assert found in problems
    for found in ("--certificate: found '/nowhere.pem'", "upload_limit: found 'much'", "nginx: is not installed"):
        assert found in problems


def hold_lock(site: Site, held: Any) -> None:
    with installation.locked(site, "deploy"):
        held.set()
        signal.pause()


def test_one_command_works_at_a_time_and_a_killed_one_leaves_no_lock(site: Site) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold_lock, args=(site, held), daemon=True)
    process.start()
    assert held.wait(20)
    with pytest.raises(Failure, match=rf"locked by deploy, process {process.pid}, since") as caught:
        installation.locked(site, "rollback").__enter__()
    assert caught.value.code == 75
    process.kill()
    process.join()
    with installation.locked(site, "rollback"):
        pass


def test_every_command_leaves_a_line_in_the_log(site: Site) -> None:
    with installation.logged(site, "deploy", Steps(), version="1.0") as line:
        line["release"] = "20261101000000"
    with pytest.raises(Failure), installation.logged(site, "rollback", Steps()):
        raise Failure(5, "not ready")
    first, second = map(json.loads, (site.shared / "logs/deploy.jsonl").read_text().splitlines())
    assert (first["command"], first["ok"], first["version"], first["release"]) == (
        "deploy",
        True,
        "1.0",
        "20261101000000",
    )
    assert (second["command"], second["ok"], second["error"]) == ("rollback", False, "not ready")


def link(log: Path) -> None:
    (log.parent / "elsewhere").write_text("")
    log.symlink_to(log.parent / "elsewhere")


def hard_link(log: Path) -> None:
    (log.parent / "elsewhere").write_text("")
    log.hardlink_to(log.parent / "elsewhere")


@pytest.mark.parametrize("make", [link, hard_link, os.mkfifo])
def test_nobody_can_make_the_log_lead_elsewhere(
    site: Site, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(site.shared / "logs/deploy.jsonl")
    with installation.logged(site, "deploy", Steps()):
        pass
    assert "deploy.jsonl: not written" in capsys.readouterr().err
    elsewhere = site.shared / "logs/elsewhere"
    assert not elsewhere.exists() or elsewhere.read_text() == ""


def test_an_answer_that_never_ends_is_given_up(site: Site) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(site.socket))
    listener.listen()
    ended = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        while not ended.wait(0.05):
            try:
                connection.sendall(b"H")
            except OSError:
                break
        connection.close()

    threading.Thread(target=drip, daemon=True).start()
    with pytest.raises((OSError, http.client.HTTPException)):
        installation.ask(site, site.socket, "/readyz")
    ended.set()
    listener.close()


def test_it_goes_on_when_nobody_reads_what_it_says(site: Site) -> None:
    script = """
import sys
from deploy.installation import Steps, say
steps = Steps()
sys.stdin.readline()
with steps("web"):
    say("failed", error=True)
open(sys.argv[1], "w").write("done")
"""
    done = site.root / "done"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(done)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    process.wait(20)
    assert done.read_text() == "done"


def test_what_programs_say_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = installation.run(sys.executable, "-c", r"import os; os.write(1, b'caf\xe9 \x1b]0;title\x07 end')").stdout
    installation.say(said)
    shown = capsys.readouterr().out
    assert "end" in shown
    assert shown.rstrip("\n").isprintable()
