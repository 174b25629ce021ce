"""The release tool's parts that need neither root nor systemd."""

import gzip
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import ROOT
from deploy import release
from deploy.installation import Failure, Site

FILES = {"web.py": b"app = 1\n", "deploy/release.py": b"#!/usr/bin/env python3\n"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An installation in a temporary folder, without any release."""
    for name in ("releases", "run", "shared/logs", "shared/static"):
        (tmp_path / name).mkdir(parents=True)
    return Site("shop", host="shop.test", keep=2, root=tmp_path)


def add_release(site: Site, name: str, *marks: str, static: str = "") -> str:
    """A release in which nothing is but what the tool reads."""
    folder = site.releases / name
    folder.mkdir()
    (folder / "release.json").write_text(json.dumps({"version": "1.0", "commit": "c0ffee"}))
    (folder / "static.json").write_text(json.dumps({"style.css": static} if static else {}))
    for mark in marks:
        release.mark(site, name, mark)
    return name


def add_to(archive: tarfile.TarFile, name: str, content: bytes = b"", **changes: Any) -> None:
    """Add a member that is a file, but for the changes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in changes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def make_artifact(path: Path, slug: str = "shop", files: dict[str, bytes] | None = None) -> Path:
    """An artifact of these files; `release.json` names those of `FILES`."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    manifest = {"application": slug, "version": "1.0", "commit": "c0ffee", "files": hashes}
    with tarfile.open(path, "w:gz") as archive:
        add_to(archive, "release.json", json.dumps(manifest).encode())
        for name, content in (FILES if files is None else files).items():
            add_to(archive, name, content, mode=0o755 if content.startswith(b"#!") else 0o644)
    return path


def test_a_whole_artifact_is_unpacked_with_its_modes(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "a.tar.gz")
    (target := tmp_path / "target").mkdir()
    assert release.read_artifact(artifact, "shop", target)["version"] == "1.0"
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    modes = {name: (target / name).stat().st_mode & 0o777 for name in FILES}
    assert modes == {"web.py": 0o644, "deploy/release.py": 0o755}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"web.py": b"app = 1\n"}, "lacks 'deploy/release.py'"),
        (FILES | {"more.py": b""}, "holds 'more.py', which its manifest does not know"),
        (FILES | {"web.py": b"app = 2\n"}, "'web.py' is not as its manifest says"),
        (FILES | {"../web.py": b""}, "holds '../web.py'"),
        (FILES | {"/web.py": b""}, "holds '/web.py'"),
    ],
)
def test_an_artifact_that_differs_from_its_manifest_is_refused(
    tmp_path: Path, files: dict[str, bytes], found: str
) -> None:
    artifact = make_artifact(tmp_path / "a.tar.gz", files=files)
    with pytest.raises(Failure, match=found) as caught:
        release.read_artifact(artifact, "shop")
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "found"),
    [("LARGEST_MANIFEST", r"'release\.json' has \d+ bytes"), ("LARGEST_FILE", r"'web\.py' has 1000 bytes")],
)
def test_no_file_of_an_artifact_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, found: str
) -> None:
    artifact = make_artifact(tmp_path / "a.tar.gz", files={"web.py": b"0" * 1000})
    monkeypatch.setattr(release, limit, 100)
    with pytest.raises(Failure, match=f"{found}, expected at most 100"):
        release.read_artifact(artifact, "shop")


@pytest.mark.parametrize(
    "changes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "release.json"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.DIRTYPE},
    ],
)
def test_only_files_are_taken_from_an_artifact(tmp_path: Path, changes: dict[str, Any]) -> None:
    artifact = tmp_path / "a.tar.gz"
    manifest = {"application": "shop", "version": "1.0", "commit": "c0ffee", "files": {"web.py": "0" * 64}}
    with tarfile.open(artifact, "w:gz") as archive:
        add_to(archive, "release.json", json.dumps(manifest).encode())
        add_to(archive, "web.py", **changes)
    (target := tmp_path / "target").mkdir()
    with pytest.raises(Failure, match=r"holds 'web\.py'"):
        release.read_artifact(artifact, "shop", target)
    assert [path.name for path in target.iterdir()] == ["release.json"]


def truncated(path: Path) -> None:
    make_artifact(path)
    path.write_bytes(path.read_bytes()[:-60])


def of_another_application(path: Path) -> None:
    make_artifact(path, "blog")


def no_archive(path: Path) -> None:
    path.write_text("hello")


def packed_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"hello" * 1000))


def without_a_manifest(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        add_to(archive, "web.py")


def broken_manifest(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        add_to(archive, "release.json", b"{")


def deep_manifest(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        add_to(archive, "release.json", b"[" * 100_000)


def nothing(path: Path) -> None:
    """There is no such file."""


@pytest.mark.parametrize(
    "make",
    [
        truncated,
        of_another_application,
        no_archive,
        packed_text,
        without_a_manifest,
        broken_manifest,
        deep_manifest,
        nothing,
    ],
)
def test_what_is_no_artifact_of_this_application_is_one_line(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(artifact := tmp_path / "a.tar.gz")
    with pytest.raises(Failure) as caught:
        release.read_artifact(artifact, "shop")
    assert caught.value.code == 2
    assert str(caught.value).startswith(f"{artifact}: ")
    assert "\n" not in str(caught.value)


def test_the_link_always_leads_somewhere_while_it_is_changed(site: Site) -> None:
    names = [add_release(site, name) for name in ("20261101000000", "20261102000000")]
    release.point(site, names[0])
    done = threading.Event()
    found = set()

    def look() -> None:
        while not done.is_set():
            found.add(site.current())

    looker = threading.Thread(target=look)
    looker.start()
    for count in range(200):
        release.point(site, names[count % 2])
    done.set()
    looker.join()
    assert found <= set(names)
    assert os.readlink(site.link) == f"releases/{names[1]}"
    assert sorted(path.name for path in site.root.iterdir()) == ["app", "releases", "run", "shared"]


def test_release_names_only_grow(site: Site) -> None:
    first = add_release(site, release.next_name(site))
    second = add_release(site, release.next_name(site))
    future = add_release(site, "29991231235959")
    assert first < second < future < release.next_name(site)


def test_the_live_release_and_the_newest_good_ones_are_kept(site: Site) -> None:
    oldest = add_release(site, "20261101000000", "LIVE")
    add_release(site, "20261102000000", "LIVE")
    add_release(site, "20261103000000", "LIVE")
    add_release(site, "20261104000000", "LIVE", "BAD")
    add_release(site, "20261105000000", "LIVE")
    add_release(site, "20261106000000")
    release.point(site, oldest)
    unneeded = ["20261102000000", "20261104000000", "20261106000000"]
    assert release.prunable(site) == unneeded
    assert release.prunable(site, keep=1) == ["20261102000000", "20261103000000", "20261104000000", "20261106000000"]
    release.remove(site, unneeded)
    assert site.names() == [oldest, "20261103000000", "20261105000000"]


def test_static_files_stay_as_long_as_a_release_needs_them(site: Site) -> None:
    static = site.shared / "static"
    for name in ("style.00000001.css", "style.00000002.css", "robots.txt"):
        (static / name).write_text("")
    add_release(site, "20261101000000", "LIVE", static="style.00000001.css")
    add_release(site, "20261102000000", "LIVE", static="style.00000002.css")
    release.remove(site, [])
    assert len(list(static.iterdir())) == 3
    release.remove(site, ["20261101000000"])
    assert sorted(path.name for path in static.iterdir()) == ["robots.txt", "style.00000002.css"]


def test_static_files_are_added_and_mended(site: Site) -> None:
    name = add_release(site, "20261101000000", static="css/style.00000001.css")
    source = site.releases / name / "app/static/css/style.00000001.css"
    source.parent.mkdir(parents=True)
    source.write_text("new")
    target = site.shared / "static/css/style.00000001.css"
    for before in (None, "", "ne"):
        if before is not None:
            target.write_text(before)
        release.publish_static(site, name)
        assert target.read_text() == "new"
        assert target.stat().st_mode & 0o777 == 0o644


def test_what_is_no_release_is_left_alone(site: Site) -> None:
    for name in ("notes", "lost+found", "old-copy"):
        (site.releases / name).mkdir()
    (site.releases / "20261101").write_text("")
    live = add_release(site, "20261101000000", "LIVE")
    release.point(site, live)
    assert site.names() == [live]
    assert release.next_name(site) > live
    release.remove(site, release.prunable(site))
    assert len(list(site.releases.iterdir())) == 5


class Service(socketserver.UnixStreamServer):
    """Answers /readyz on a socket, each time with the next of the answers, and then with the last one."""

    def __init__(self, path: Path, answers: list[tuple[int, object]]) -> None:
        super().__init__(str(path), Handler)
        self.answers = answers
        self.count = 0


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Service

    def do_GET(self) -> None:
        status, answer = self.server.answers[min(self.server.count, len(self.server.answers) - 1)]
        self.server.count += 1
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


Answering = Callable[..., Service]


@pytest.fixture
def answering(site: Site) -> Iterator[Answering]:
    """Starts a service that gives these answers."""
    services = []

    def start(*answers: tuple[int, object]) -> Service:
        service = Service(site.socket, list(answers))
        services.append(service)
        threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return service

    yield start
    for service in services:
        service.shutdown()
        service.server_close()


def ready(name: str = "new", **checks: str) -> tuple[int, object]:
    """What /readyz says."""
    status = 503 if any(result != "ok" for result in checks.values()) else 200
    return status, {"release": name, "checks": {"database": "ok"} | checks}


def test_answers_of_another_release_do_not_count(site: Site, answering: Answering) -> None:
    service = answering(ready("old"), ready("old", queue="failed"), ready("new"))
    assert release.wait_until_ready(site, site.socket, "new")
    assert service.count == 3


def test_a_release_that_may_wait_for_migrations_says_so(site: Site, answering: Answering) -> None:
    answering(ready(migrations="Run: python main.py db upgrade"))
    assert release.wait_until_ready(site, site.socket, "new", migrated=False) is False
    with pytest.raises(Failure, match="migrations: Run"):
        release.wait_until_ready(site, site.socket, "new")


@pytest.mark.parametrize("answer", [ready(queue="failed: ConnectionError"), (500, "oops"), (200, "hello"), (200, [])])
def test_bad_answers_fail_at_once(site: Site, answering: Answering, answer: tuple[int, object]) -> None:
    service = answering(answer)
    with pytest.raises(Failure, match="/readyz: "):
        release.wait_until_ready(site, site.socket, "new", migrated=False)
    assert service.count == 3


def test_one_bad_answer_is_forgiven(site: Site, answering: Answering) -> None:
    answering((500, "starting"), ready())
    assert release.wait_until_ready(site, site.socket, "new")


def test_releases_are_listed_with_what_became_of_them(site: Site) -> None:
    add_release(site, "20261101000000", "LIVE")
    live = add_release(site, "20261102000000", "LIVE")
    (site.releases / add_release(site, "20261103000000", "LIVE") / "BAD").write_text("rolled back to 20261102000000")
    add_release(site, "20261104000000")
    release.point(site, live)
    states = {row["release"]: row["state"] for row in release.describe(site)}
    assert list(states.values()) == ["was live", "live", "rolled back to 20261102000000", "never live"]


def test_help_needs_no_root_and_names_the_exit_codes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/release.py", "--help"], capture_output=True, text=True, check=True
    )
    for word in ("init", "deploy", "rollback", "releases", "prune", "status", "doctor", "75 another command"):
        assert word in " ".join(done.stdout.split())


def test_commands_that_the_page_names_are_there() -> None:
    page = (ROOT / "docs/production.md").read_text(encoding="utf-8")
    known = release.arguments().format_help()
    for command in re.findall(r"release\.py ([a-z]+)", page):
        assert re.search(rf"(?m)^ +{command} ", known), command


@pytest.mark.parametrize("words", [["deploy", "a.tar.gz"], ["rollback"], ["prune"]])
def test_commands_that_change_the_host_need_root_and_an_installation(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/release.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_it_runs_from_anywhere_with_nothing_but_python_and_leaves_nothing_there(tmp_path: Path) -> None:
    """As root runs it from an unpacked artifact, or through the link to the live release."""
    folder = tmp_path / "releases/1"
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    # Neither the project's modules nor those of the folder that it is run in are Python's own.
    for place in (folder, tmp_path):
        for name in ("ssl", "tomllib", "doctor", "installation"):
            (place / f"{name}.py").write_text("raise RuntimeError(__file__)\n")
    (tmp_path / "app").symlink_to("releases/1")
    before = sorted(tmp_path.rglob("*"))
    for tool in (folder / "deploy/release.py", Path("app/deploy/release.py")):
        done = subprocess.run(
            [sys.executable, "-S", tool, "--help"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
