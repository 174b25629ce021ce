"""What is refused: in one line, with the right exit code, and with nothing changed."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator

import pytest
from deploy.service import ARTIFACTS, Service

Member = tuple[tarfile.TarInfo, bytes]


def test_a_broken_artifact_is_refused(service: Service, broken: str) -> None:
    before = listing(service)

    result = service.tool("deploy", "--offline", broken)

    assert_refused(result.returncode, result.stderr)
    assert broken in result.stderr
    assert listing(service) == before
    assert service.serving() == service.live()


@pytest.mark.parametrize(
    "words",
    [
        ("init", "--host", "two words"),
        ("init", "--host", "blog.test;"),
        ("init", "--host", ""),
        ("init", "--host", "blog.test", "--user", "nobody-of-that-name"),
        ("init", "--host", "blog.test", "--certificate", "/etc/nothing.pem", "--certificate-key", "/etc/nginx"),
        ("rollback", "20200101000000"),
        ("rollback", "../shared"),
        ("prune", "--keep", "0"),
        ("deploy", "/nowhere.tar.gz"),
        ("deploy", "/root"),
    ],
)
def test_a_bad_option_is_refused(service: Service, words: tuple[str, ...]) -> None:
    before = listing(service)

    result = service.tool(*words)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert listing(service) == before


@pytest.mark.parametrize(
    ("hide", "word"),
    [("mount -t tmpfs none /run/systemd", "systemd"), ("mount --bind /dev/null /usr/sbin/nginx", "nginx")],
)
def test_a_host_that_lacks_something_is_refused(service: Service, hide: str, word: str) -> None:
    before = listing(service)

    code, line = in_a_world_where(service, hide, "init", "--host", service.host)

    assert_refused(code, line)
    assert word in line
    assert listing(service) == before


def test_without_room_nothing_is_unpacked(service: Service) -> None:
    before = listing(service)
    layers = f"lowerdir={service.root},upperdir=/mnt/upper,workdir=/mnt/work"
    small = f"mount -t tmpfs -o size=50m none /mnt && mkdir /mnt/upper /mnt/work && mount -t overlay -o {layers} none"

    code, line = in_a_world_where(service, f"{small} {service.root}", "deploy", service.artifact("first"))

    assert_refused(code, line)
    assert "MB" in line
    assert listing(service) == before


def test_an_env_file_with_a_broken_line_is_refused(service: Service) -> None:
    env = service.machine.path(f"{service.root}/shared/.env")
    text = env.read_text()
    try:
        env.write_text(text + "no assignment\n")
        before = listing(service)

        result = service.deploy("second")

        assert listing(service) == before
    finally:
        env.write_text(text)

    assert_refused(result.returncode, result.stderr)
    assert ".env" in result.stderr
    assert service.serving() == service.live()


def test_a_release_that_cannot_be_imported_is_refused(service: Service) -> None:
    before = listing(service)

    result = service.deploy("no module")

    assert_refused(result.returncode, result.stderr)
    assert "nothing_of_that_name" in result.stderr
    assert listing(service) == before
    assert service.serving() == service.live()


def assert_refused(code: int, printed: str) -> None:
    """One line, and the exit code for bad input."""
    assert code == 2, printed
    assert len(printed.strip().splitlines()) == 1, printed
    assert "Traceback" not in printed


def in_a_world_where(service: Service, mount: str, *words: str) -> tuple[int, str]:
    """Run the tool with something mounted that nobody else sees: its exit code, and what it says."""
    script = f'{mount} && exec python3 {service.script} "$@"'
    result = service.machine.run("unshare", "--mount", "sh", "-euc", script, "sh", *words)
    return result.returncode, result.stderr


def listing(service: Service) -> list[str]:
    """All that a command may change, but for what the service writes by itself, and the log of commands."""
    own = [f"{service.root}/shared/{name}" for name in ("cache", "data", "logs", "sessions", "work")]
    pruned = " -o ".join(f"-path {path}" for path in [*own, f"{service.root}/.deploy.lock"])
    files = r"-type f -printf '%p %m %u %g %s %T@\n' -o ! -type f -printf '%p %m %u %g %l\n'"
    find = f"find /srv /etc /usr/local \\( {pruned} \\) -prune -o {files} | sort"
    return service.machine.run("sh", "-euc", find, check=True).stdout.splitlines()


def truncated(members: list[Member]) -> bytes:
    """As when a copy was interrupted."""
    return packed(members)[:-2000]


def without_a_file(members: list[Member]) -> bytes:
    """As when a copy was interrupted, and somebody has packed what was there."""
    return packed(members[:-1])


def changed(members: list[Member]) -> bytes:
    """A file is not what the manifest says."""
    return packed([(info, content + b"#" if info.name == "web.py" else content) for info, content in members])


def outside(members: list[Member]) -> bytes:
    """A file that would land outside of the release."""
    return packed(with_another(members, tarfile.TarInfo("../evil.py")))


def absolute(members: list[Member]) -> bytes:
    """A file with a place of its own."""
    return packed(with_another(members, tarfile.TarInfo("/etc/evil.py")))


def link(members: list[Member]) -> bytes:
    """A link that leads out of the release."""
    info = tarfile.TarInfo("evil")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return packed(with_another(members, info))


def hard_link(members: list[Member]) -> bytes:
    """A second name for a file outside of the release."""
    info = tarfile.TarInfo("evil")
    info.type, info.linkname = tarfile.LNKTYPE, "/etc/passwd"
    return packed(with_another(members, info))


def device(members: list[Member]) -> bytes:
    """The host's memory."""
    info = tarfile.TarInfo("evil")
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 1
    return packed(with_another(members, info))


def another_application(members: list[Member]) -> bytes:
    """A good release of something else."""
    manifest = {**json.loads(members[0][1]), "application": "another"}
    return packed([(members[0][0], json.dumps(manifest).encode()), *members[1:]])


def not_a_tar(members: list[Member]) -> bytes:
    """Something else that is compressed."""
    return gzip.compress(b"hello")


def text(members: list[Member]) -> bytes:
    """What a download with an error holds."""
    return b"<h1>Not found</h1>"


def nothing(members: list[Member]) -> bytes:
    """An empty file."""
    return b""


BROKEN: tuple[Callable[[list[Member]], bytes], ...] = (
    truncated,
    without_a_file,
    changed,
    outside,
    absolute,
    link,
    hard_link,
    device,
    another_application,
    not_a_tar,
    text,
    nothing,
)


@pytest.fixture(params=BROKEN, ids=lambda make: make.__name__)
def broken(request: pytest.FixtureRequest, service: Service) -> Iterator[str]:
    """The path of an artifact with a fault, with wheels beside it."""
    with tarfile.open(service.machine.path(service.artifact("first"))) as archive:
        members = []
        for info in archive:
            content = archive.extractfile(info)
            members.append((info, content.read() if content else b""))
    path = f"{ARTIFACTS}/{service.slug}/broken.tar.gz"
    service.machine.write(path, request.param(members))
    yield path
    service.machine.path(path).unlink()


def with_another(members: list[Member], info: tarfile.TarInfo) -> list[Member]:
    """With a member that the manifest knows."""
    manifest = json.loads(members[0][1])
    manifest["files"][info.name] = hashlib.sha256(b"").hexdigest()
    return [(members[0][0], json.dumps(manifest).encode()), *members[1:], (info, b"")]


def packed(members: list[Member]) -> bytes:
    """A compressed tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()
