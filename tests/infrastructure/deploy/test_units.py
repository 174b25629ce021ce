"""What systemd itself says of the units, and of the folders around them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.release import Site, render
from tests.infrastructure.deploy.sites import make_site

if not shutil.which("systemd-analyze"):
    pytest.skip("needs systemd-analyze: apt install systemd", allow_module_level=True)

RELEASE = "20260101000000"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become others")


@pytest.fixture
def site() -> Iterator[Site]:
    """An installation with all programs that units start, in a folder that others may enter."""
    with tempfile.TemporaryDirectory(prefix="test-units-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        site = make_site(root=place / "srv/shop", user="www-data")
        programs = site.folder(RELEASE) / ".venv/bin"
        programs.mkdir(parents=True)
        for program in ("gunicorn", "python"):
            (programs / program).symlink_to("/bin/true")
        (site.root / "app").symlink_to(f"releases/{RELEASE}")
        yield site


def write_units(site: Site) -> list[Path]:
    """The rendered units, in a folder beside the installation's."""
    folder = site.root.parent.parent / "units"
    folder.mkdir()
    units = []
    for path, text in render(site).items():
        if path.suffix in (".service", ".socket"):
            units.append(folder / path.name)
            units[-1].write_text(text)
    return units


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What `systemd-analyze` prints and returns."""
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def verify(units: list[Path]) -> subprocess.CompletedProcess[str]:
    """Let systemd read the units, templates as those of a release."""
    return analyze("verify", "--man=no", *(str(unit).replace("@.", f"@{RELEASE}.") for unit in units))


def test_systemd_understands_every_line(site: Site) -> None:
    units = write_units(site)
    result = verify(units)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    # It returns 0 for a key that is not known: only what it prints tells.
    for unit in units:
        unit.write_text(unit.read_text().replace("UMask=", "Umask="))
    assert "Umask" in verify(units).stderr


def test_no_service_is_exposed(site: Site) -> None:
    """systemd counts from 0, safe, to 10, which is what a unit without any such settings has."""
    for unit in write_units(site):
        if "\nUser=" in unit.read_text():
            result = analyze("security", "--offline=true", "--threshold=15", "--no-pager", unit)
            assert result.returncode == 0, result.stdout[-200:]
            unit.write_text("\n".join(line for line in unit.read_text().splitlines() if "SystemCallFilter" not in line))
            assert analyze("security", "--offline=true", "--threshold=15", "--no-pager", unit).returncode == 1


@needs_root
def test_folders_are_made_and_mended(site: Site) -> None:
    conf = site.root.parent / "shop.conf"
    conf.write_text(render(site)[Path("/etc/tmpfiles.d/shop.conf")])
    for _ in range(2):
        subprocess.run(["systemd-tmpfiles", "--create", conf], timeout=60, check=True)
        folders = (site.root, site.root / "releases", site.shared, site.root / "run", site.shared / ".env")
        modes = {path.name: path.stat().st_mode & 0o777 for path in folders if path.exists()}
        assert modes in (
            {"shop": 0o755, "releases": 0o755, "shared": 0o750, "run": 0o755},
            {"shop": 0o755, "releases": 0o755, "shared": 0o750, "run": 0o755, ".env": 0o640},
        )
        assert [site.shared.owner(), site.shared.group(), (site.root / "run").owner()] == ["root", "www-data", "root"]
        assert os.readlink(site.root / "venv") == "app/.venv"
        (site.shared / ".env").touch(0o666)
        site.shared.chmod(0o777)
        shutil.chown(site.root / "run", "nobody")


@needs_root
def test_nginx_reads_files_of_another_user_but_no_secrets(site: Site) -> None:
    own = replace(site, user="games")
    conf = own.root.parent / "shop.conf"
    conf.write_text(render(own)[Path("/etc/tmpfiles.d/shop.conf")])
    subprocess.run(["systemd-tmpfiles", "--create", conf], timeout=60, check=True)
    for name in ("data", "data/uploads", "data/exports", "data/batches", "media", "static", "config", "logs"):
        place = own.shared / name
        place.mkdir()
        place.chmod(0o750)
        shutil.chown(place, "games", "games")
    create = subprocess.run(["systemd-tmpfiles", "--create", conf], capture_output=True, timeout=60, check=True)
    if b"not supported" in create.stderr:
        pytest.skip("needs a file system with ACLs")
    files = (".env", "data/app.sqlite3", "config/a", "logs/a", "data/exports/a", "media/new/a")
    script = f"umask 027; mkdir media/new; for f in {' '.join(files)}; do echo a > $f; chgrp games $f; done"
    subprocess.run(["sh", "-euc", script], cwd=own.shared, timeout=60, check=True)
    readable = {}
    for name in files:
        command = ["test", "-r", str(own.shared / name)]
        result = subprocess.run(command, user="www-data", group="www-data", extra_groups=[], timeout=60, check=False)
        readable[name] = result.returncode == 0
    assert [name for name, can in readable.items() if can] == ["data/exports/a", "media/new/a"]
    assert (own.shared / "media/new/a").stat().st_mode & 0o777 == 0o640
