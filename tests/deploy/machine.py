"""A Debian host for the tests: a real systemd in a container of its own, without a network.

`debootstrap` makes its files once, into a folder of temporary files; each machine starts from a copy of them. Commands
run in it as root. Nothing of a machine outlives the process that has started it: the kernel ends it even if that
process is killed.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUITE = "bookworm"
PACKAGES = (
    "curl",
    "dbus",
    "iproute2",
    "nginx-light",
    "openssl",
    "procps",
    "python3",
    "python3-venv",
    "systemd",
    "systemd-sysv",
    "wrk",
)
TOOLS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
# Of the folders that systemd knows for its control groups, these are there: both on older hosts, the last on newer.
CONTROL_GROUPS = tuple(Path("/sys/fs/cgroup") / name for name in ("systemd", "unified", ""))
# Seconds.
BOOT_PATIENCE = 60
INSTALL_PATIENCE = 900
STOP_PATIENCE = 60
# Where large files lie if so many bytes are free: on disks, copying, syncing and removing takes most of the time.
MEMORY, ROOM = Path("/dev/shm"), 4 << 30


class Machine:
    """A host that can be started, stopped, and have its power cut. Its files are in `tree`."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.name = f"machine-{uuid.uuid4().hex[:12]}"
        self.container: subprocess.Popen[bytes] | None = None
        self.init = 0

    def start(self) -> None:
        """Start it, and wait until all its services have started."""
        groups = [folder / self.name for folder in CONTROL_GROUPS if (folder / "cgroup.procs").exists()]
        for group in groups:
            group.mkdir(exist_ok=True)
        join = 'for group; do [ "$group" = -- ] && break; shift; echo $$ > "$group/cgroup.procs"; done; shift; '
        container = ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
        container += ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]
        # Nothing here has to survive a crash of the host.
        container += ["--suppress-sync=yes"]
        container += ["--settings=no", "--link-journal=no", "--timezone=off", "--resolv-conf=off"]
        container += [f"--machine={self.name}", f"--directory={self.tree}"]
        with (self.tree.parent / "console.log").open("ab") as console:
            self.container = subprocess.Popen(
                ["sh", "-euc", f'{join} exec "$@"', "sh", *map(str, groups), "--", *container],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # As on Debian's own kernel, whatever this host has.
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        wait_until(self.find_init, BOOT_PATIENCE, "the machine does not start")
        wait_until(self.has_booted, BOOT_PATIENCE, "the machine's services do not start")

    def find_init(self) -> bool:
        """Whether its first process is there, which then has a number here."""
        assert self.container
        if self.container.poll() is not None:
            raise AssertionError(f"the machine has ended: {(self.tree.parent / 'console.log').read_text()[-2000:]}")
        self.init = next((pid for pid in descendants(self.container.pid) if command_of(pid) == "systemd"), 0)
        return bool(self.init)

    def has_booted(self) -> bool:
        """Whether all services have been started, or have failed to."""
        return self.run("systemctl", "is-system-running", "--wait").stdout.strip() in ("running", "degraded")

    def run(self, *command: str | Path, timeout: float = 60, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command as root.

        Args:
            timeout: seconds, after which it is killed; the exit code is then negative.
            check: whether it has to succeed.
        """
        result = subprocess.run(
            self.entering(*command, timeout=timeout),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout + STOP_PATIENCE,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(f"{command}: exit {result.returncode}: {result.stdout[-2000:]}{result.stderr[-2000:]}")
        return result

    def spawn(self, *command: str | Path, timeout: float = 600) -> subprocess.Popen[str]:
        """Start a command as root, whose output, standard error included, can be read while it runs."""
        return subprocess.Popen(
            self.entering(*command, timeout=timeout),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def entering(self, *command: str | Path, timeout: float) -> list[str]:
        """The command that runs another one in the machine, with the environment of a login."""
        environ = ["HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        enter = ["nsenter", f"--target={self.init}", "--all", "--root", "--wd", "env", "--ignore-environment"]
        return [*enter, *environ, "timeout", "--signal=KILL", str(timeout), *map(str, command)]

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Make a file, and the folders that it needs."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)
        target.chmod(mode)

    def put(self, source: Path, path: str) -> None:
        """Copy a file or a folder into it."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)

    def path(self, path: str) -> Path:
        """Where a path of the machine is here; links in it are not followed the way they are there."""
        return self.tree / path.lstrip("/")

    def reboot(self) -> None:
        """Stop it as an administrator does, and start it again."""
        self.power_off()
        self.start()

    def power_off(self) -> None:
        """Stop it as an administrator does."""
        assert self.container
        self.run("systemctl", "poweroff")
        self.container.wait(STOP_PATIENCE)
        self.clean_up()

    def cut_power(self) -> None:
        """End it at once, as when the power fails."""
        if self.container and self.container.poll() is None:
            os.kill(self.container.pid, signal.SIGKILL)
            self.container.wait()
        if self.init:
            wait_until(lambda: not Path(f"/proc/{self.init}").exists(), STOP_PATIENCE, "the machine does not end")
        self.clean_up()

    def clean_up(self) -> None:
        """Remove its control groups, which are empty now."""
        for folder in CONTROL_GROUPS:
            for group, _, _ in os.walk(folder / self.name, topdown=False):
                Path(group).rmdir()


def wait_until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Wait for something to become true.

    Raises:
        AssertionError: it has not in that time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


def descendants(pid: int) -> Iterator[int]:
    """The processes below one that are there now, the nearest first."""
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from descendants(child)


def command_of(pid: int) -> str:
    """The name of a process; empty if it has just ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def what_is_missing() -> str | None:
    """Why no machine can run here, in a line; nothing if one can."""
    if os.geteuid() != 0:
        return "only root can start a machine: run the tests as root"
    if missing := sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None}):
        return f"a machine needs packages: apt-get install {' '.join(missing)}"
    if not any(os.access(folder / "cgroup.procs", os.W_OK) for folder in (CONTROL_GROUPS[0], CONTROL_GROUPS[-1])):
        return "a machine needs control groups that can be written to, in /sys/fs/cgroup"
    return None


@contextmanager
def roomy_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for large files, in memory if there is room."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    with tempfile.TemporaryDirectory(prefix=prefix, dir=MEMORY if in_memory else None) as folder:
        yield Path(folder)


@contextmanager
def running_machine() -> Iterator[Machine]:
    """A machine with nothing but its packages, for as long as the block runs."""
    with roomy_folder("machine-") as folder:
        tree = folder / "root"
        subprocess.run(["cp", "--archive", "--reflink=auto", packaged_tree(), tree], check=True)
        machine = Machine(tree)
        try:
            machine.start()
            yield machine
        finally:
            machine.cut_power()


def packaged_tree() -> Path:
    """The files of a host with the packages, made on first use."""
    key = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    return made_once(f"debian-{key}", debootstrap)


def debootstrap(tree: Path) -> None:
    """Install a host into a folder that does not exist."""
    # It mounts what the host itself has into the folder. In a namespace of its own that ends with it, even if killed:
    # else whoever clears the folder would delete there.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += [SUITE, str(tree)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_PATIENCE, check=False)
    if result.returncode:
        # Of the second of its stages, only its log tells anything.
        logs = [tree / "debootstrap/debootstrap.log", tree / "var/log/bootstrap.log"]
        told = "".join(log.read_text(errors="replace")[-2000:] for log in logs if log.exists())
        raise AssertionError(f"debootstrap: {result.stdout[-1000:]}{result.stderr[-1000:]}{told}")
    # What was downloaded only makes copies slower; and each copy is a host of its own.
    shutil.rmtree(tree / "var/cache/apt")
    (tree / "etc/machine-id").write_text("")


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that outlives the tests, made by whoever needs it first; whoever comes meanwhile waits."""
    cache = Path(tempfile.gettempdir()) / name
    cache.mkdir(mode=0o700, exist_ok=True)
    assert cache.stat().st_uid == os.geteuid(), f"{cache} belongs to somebody else: remove it"
    content, complete = cache / "content", cache / "complete"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            if content.exists():
                shutil.rmtree(content)
            make(content)
            complete.touch()
    return content
