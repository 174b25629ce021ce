"""What deploy.ini may say, and what is rendered from it."""

import configparser
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.request_hooks import FORM_AROUND_FILE
from config import ROOT, Settings
from config.appdir import PARTS
from deploy import release
from deploy.release import BAD_INPUT, FILES, SETTINGS, WRITTEN, Failure, load_site, render
from tests.infrastructure.deploy.sites import VALUES, make_site

UNITS = Path("/etc/systemd/system")
# Those of other units differ in what is not listed here.
SHARED = (
    *("Environment", "Group", "KillMode", "LimitCORE", "MemoryMax", "NoNewPrivileges", "ProtectSystem", "TasksMax"),
    *("Type", "UMask", "User", "CapabilityBoundingSet", "PrivateDevices", "RestrictAddressFamilies", "Restart"),
)
Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Writes a deploy.ini with other values, and returns the folder of all installations."""

    def write(text: str | None = None, **values: str) -> Path:
        file = tmp_path / "my_service/deploy.ini"
        file.parent.mkdir(exist_ok=True)
        lines = "".join(f"{key} = {value}\n" for key, value in {**VALUES, **values}.items())
        file.write_text(f"[deploy]\n{lines}" if text is None else text)
        file.chmod(0o644)
        return tmp_path

    return write


def values(text: str, key: str) -> list[str]:
    """What a unit, or another file with a `key=value` a line, says of a key."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def services() -> dict[str, str]:
    """The units that run the service's code."""
    return {path.name: text for path, text in render(make_site()).items() if "User=clerk" in text}


def test_the_example_has_every_key_and_needs_no_more_than_a_host(configure: Configure) -> None:
    text = (ROOT / "deploy/deploy.ini").read_text()
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    assert list(parser["deploy"]) == list(SETTINGS)
    with pytest.raises(Failure, match="host: found '', expected a name"):
        load_site(configure(text))
    site = load_site(configure(text.replace("host =", "host = shop.test")))
    assert (site.slug, site.user, site.host) == ("my_service", "my_service", "shop.test")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("host", value) for value in ("two words", "blog.test;", "-a.test", "a..test", "a" * 64, "Blog.test", "a/b")),
        *(("user", value) for value in ("root", "a b", "0", "-u", "$(id)", "a" * 40, "shop\\n")),
        *(
            ("certificate", value)
            for value in ("etc/x", "/x;y", "/x y", "/x/../y", "/`id`", "/x'", "/.x", "/x{}", "/x$y")
        ),
        *(("upload_limit", value) for value in ("", "0m", "6", "6g", "6m;", "-1m", "99999m")),
        *(("keep", value) for value in ("", "0", "-1", "many", "100")),
        ("another", "key"),
    ],
)
def test_a_value_that_root_must_not_read_is_refused_in_a_line(configure: Configure, key: str, value: str) -> None:
    with pytest.raises(Failure) as failure:
        load_site(configure(**{key: value}))
    assert failure.value.code == BAD_INPUT
    assert key in str(failure.value)
    assert "deploy.ini" in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "host = shop.test\n", "[deploy]\nhost\n", "[deploy]\nhost = a\nhost = b\n", "\0"])
def test_a_file_that_cannot_be_read_is_a_line(configure: Configure, text: str) -> None:
    with pytest.raises(Failure) as failure:
        load_site(configure(text))
    assert "deploy.ini" in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


def test_a_file_that_others_may_change_is_not_believed(configure: Configure) -> None:
    srv = configure()
    (srv / "my_service/deploy.ini").chmod(0o664)
    with pytest.raises(Failure, match=r"others may change it; run: chown root: .* chmod 644"):
        load_site(srv)


def test_without_a_file_the_command_that_makes_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"is not there; run: install -D .*/deploy/deploy.ini"):
        load_site(tmp_path)


@pytest.mark.parametrize("site", [make_site(certificate="/etc/ssl/shop"), make_site(user="www-data")])
def test_every_placeholder_is_filled(site: release.Site) -> None:
    files = render(site)
    assert len(files) == len(FILES)
    for path, text in files.items():
        assert not re.search(r"<[a-z_]+>", text), path
        assert text.endswith("\n"), path


def test_the_service_may_write_what_the_app_folder_says_and_no_more() -> None:
    """The others are the administrator's, as config/appdir.py has it."""
    assert {name for name, part in PARTS.items() if part.written} == set(WRITTEN)
    for name, text in services().items():
        found = {place for line in values(text, "ReadWritePaths") for place in line.split()}
        assert found == {f"-/srv/shop/shared/{name}" for name in WRITTEN}, name


def test_all_units_run_as_the_same_user_with_the_same_rights() -> None:
    assert sorted(services()) == ["shop-queue.service", "shop-scheduler.service", "shop@.service"]
    for key in SHARED:
        found = {tuple(values(text, key)) for text in services().values()}
        assert len(found) == 1, key
        assert found != {()}, key
    for text in services().values():
        assert "APP_DIR=/srv/shop/shared" in " ".join(values(text, "Environment")).split()
        assert values(text, "SystemCallFilter")[:2] == ["@system-service", "~@privileged @resources"]


def test_a_service_is_given_the_time_that_its_settings_promise(shipped_settings: Settings) -> None:
    """Else systemd would kill what still answers a request, or still works on a job."""
    promised = max(shipped_settings.web.graceful_timeout, shipped_settings.queue.shutdown_timeout)
    for name, text in services().items():
        assert int(values(text, "TimeoutStopSec")[0]) >= promised + 15, name


def test_nginx_lets_through_what_may_be_uploaded(shipped_settings: Settings) -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "deploy/deploy.ini")
    limit = int(parser["deploy"]["upload_limit"].removesuffix("m")) << 20
    largest = max(shipped_settings.security.max_request_size, shipped_settings.security.max_upload_size)
    assert largest + FORM_AROUND_FILE < limit < 2 * largest


def test_every_disk_in_the_app_folder_has_its_place_in_nginx_and_may_be_read(shipped_settings: Settings) -> None:
    files = render(make_site())
    site, folders = files[Path("/etc/nginx/conf.d/shop.conf")], files[Path("/etc/tmpfiles.d/shop.conf")]
    places = dict(re.findall(r"location \^~ /protected/(\w+)/ \{\s+alias /srv/shop/shared/(\S+)/;", site))
    assert places == shipped_settings.storage.disks
    readable = re.findall(r"^a\+ /srv/shop/shared/(\S+) +- - - - user:www-data:r-x,default:", folders, re.MULTILINE)
    assert set(readable) == {"static", *places.values()}
    assert "a+" not in render(make_site(user="www-data"))[Path("/etc/tmpfiles.d/shop.conf")]


def test_services_of_one_host_do_not_get_in_each_other_s_way() -> None:
    one = render(make_site())
    other = render(make_site("blog", Path("/srv/blog"), host="blog.test"))
    assert [path.name for path in one.keys() & other.keys()] == ["default-closed.conf"]
    pattern = r"^map \S+ (\S+)|shared:(\w+):|zone=(\w+):|\(\?'(\w+)'"
    named = [set(re.findall(pattern, "\n".join(files.values()), re.MULTILINE)) for files in (one, other)]
    assert named[0]
    assert not named[0] & named[1]


def test_pages_ask_for_static_files_where_they_are_put(client: object) -> None:
    """The `v` of an address is a folder in shared/static."""
    asked = re.findall(r'(?:href|src)="/static/([^"?]+)\?v=([^"]+)"', client.get("/login").text)  # type: ignore[attr-defined]
    assert asked
    placed = {name for _, name in release.static_files(ROOT)}
    assert {f"{version}/{name}" for name, version in asked} <= placed
