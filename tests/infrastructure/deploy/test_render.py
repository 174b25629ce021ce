"""Units, web server and folders as they are rendered for an installation."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from app.request_hooks import FORM_AROUND_FILE
from config import ROOT, Settings
from config.appdir import PARTS
from deploy.installation import BAD_INPUT, WRITTEN, Failure, Site, load_site, render

SITE = Site(
    "shop",
    host="shop.test",
    user="clerk",
    group="clerks",
    certificate="/etc/ssl/shop.pem",
    certificate_key="/etc/ssl/shop.key",
    upload_limit="7m",
    root=Path("/srv/shop"),
)
UNITS = Path("/etc/systemd/system")
# Those of other units differ in what is not listed here.
SHARED = (
    *("Environment", "Group", "KillMode", "NoNewPrivileges", "ProtectSystem", "SystemCallErrorNumber"),
    *("Type", "UMask", "User", "CapabilityBoundingSet", "PrivateDevices", "RestrictAddressFamilies"),
)


def values(text: str, key: str) -> list[str]:
    """What a unit, or another file with a `key=value` a line, says of a key."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def services(site: Site = SITE) -> dict[str, str]:
    return {path.name: text for path, text in render(site).items() if path.suffix == ".service"}


def overlaid(tmp_path: Path, text: str) -> Path:
    """A folder of installations in which the app folder of this project's says something else."""
    overlay = tmp_path / load_site().slug / "shared/config/deploy.ini"
    overlay.parent.mkdir(parents=True)
    overlay.write_text(text)
    return tmp_path


@pytest.mark.parametrize("site", [SITE, replace(SITE, certificate="", certificate_key="", group="www-data")])
def test_every_placeholder_is_filled(site: Site) -> None:
    files = render(site)
    for path, text in files.items():
        assert not re.search(r"<[a-z_]+>", text), path
        assert text.endswith("\n"), path
    names = {path.relative_to(UNITS).name for path in files if path.parent == UNITS}
    assert names == {
        *("shop.socket", "shop.service", "shop@.service", "shop-queue.service", "shop-scheduler.service"),
        *("shop-preflight@.socket", "shop-preflight@.service"),
    }


def test_the_service_may_write_what_the_app_folder_says_and_no_more() -> None:
    """The others are the administrator's, as config/appdir.py has it."""
    written = tuple(name for name, part in PARTS.items() if part.written)
    assert sorted(WRITTEN) == sorted(written)
    expected = {f"-/srv/shop/shared/{name}" for name in written}
    for name, text in services().items():
        found = {place for line in values(text, "ReadWritePaths") for place in line.split()}
        assert found == expected, name


def test_all_units_run_as_the_same_user_with_the_same_rights() -> None:
    texts = services()
    assert len(texts) == 5
    for key in SHARED:
        found = {tuple(values(text, key)) for text in texts.values()}
        assert len(found) == 1, key
        assert found != {()}, key
    assert values(texts["shop.service"], "User") == ["clerk"]
    assert values(texts["shop.service"], "Group") == ["clerks"]
    for text in texts.values():
        assert "APP_DIR=/srv/shop/shared" in " ".join(values(text, "Environment")).split()
        filters = values(text, "SystemCallFilter")
        assert filters[:2] == ["@system-service", "~@privileged @resources"]


def test_a_service_is_given_the_time_that_its_settings_promise(shipped_settings: Settings) -> None:
    """Else systemd would kill what still answers a request, or still works on a job."""
    promised = {
        "shop.service": shipped_settings.web.graceful_timeout,
        "shop@.service": shipped_settings.web.graceful_timeout,
        "shop-queue.service": shipped_settings.queue.shutdown_timeout,
    }
    for name, text in services().items():
        assert int(values(text, "TimeoutStopSec")[0]) >= promised.get(name, 0) + 15, name


def test_only_what_is_always_there_is_started_at_boot_and_nothing_before_a_first_release() -> None:
    for path, text in render(SITE).items():
        if path.parent == UNITS:
            instance = "@" in path.name
            assert bool(values(text, "WantedBy")) is not instance, path
            assert values(text, "ConditionPathExists") == ([] if instance else ["/srv/shop/app"]), path
            # Started again and again without an end, or not at all.
            assert values(text, "Restart") == (["no"] if instance else ["always"]) or path.suffix == ".socket"


def test_the_bridge_shares_the_socket_and_the_preflight_does_not() -> None:
    texts = services()
    assert values(texts["shop@.service"], "Sockets") == ["shop.socket"]
    for name in ("shop.service", "shop@.service"):
        assert values(texts[name], "NonBlocking") == ["yes"]
    assert values(texts["shop-preflight@.service"], "Requires") == ["shop-preflight@%i.socket"]
    sockets = {path.name: text for path, text in render(SITE).items() if path.suffix == ".socket"}
    places = {name: values(text, "ListenStream") + values(text, "SocketMode") for name, text in sockets.items()}
    assert places == {
        "shop.socket": ["/srv/shop/run/gunicorn.sock", "0660"],
        "shop-preflight@.socket": ["/srv/shop/run/preflight.sock", "0600"],
    }


def test_nginx_lets_through_what_may_be_uploaded(shipped_settings: Settings) -> None:
    size, unit = re.fullmatch(r"(\d+)([kmg]?)", shipped_settings.deploy.upload_limit).groups()  # type: ignore[union-attr]
    limit = int(size) * {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[unit]
    largest = max(shipped_settings.security.max_request_size, shipped_settings.security.max_upload_size)
    assert largest + FORM_AROUND_FILE < limit < 2 * largest


def test_nginx_is_given_rights_of_its_own_if_it_is_not_in_the_group() -> None:
    conf = Path("/etc/tmpfiles.d/shop.conf")
    own, shared = render(SITE)[conf], render(replace(SITE, group="www-data"))[conf]
    granted = dict(re.findall(r"^a\+ /srv/shop/(\S+) +- - - - user:www-data:(\S+)$", own, re.MULTILINE))
    passed = {place for place, rights in granted.items() if rights == "--x"}
    read = {place for place, rights in granted.items() if rights == "r-x,default:user:www-data:r-x"}
    assert passed == {"shared", "shared/data"}
    assert read == {
        *("shared/static", "shared/media"),
        *("shared/data/uploads", "shared/data/exports", "shared/data/batches"),
    }
    assert "a+" not in shared
    made = [re.findall(r"^[dL] \S+ +\S+", text, re.MULTILINE) for text in (own, shared)]
    assert made[0] == made[1] != []


def test_nginx_keeps_no_connection_that_would_count_without_a_request() -> None:
    site = render(SITE)[Path("/etc/nginx/conf.d/shop.conf")]
    assert "    proxy_set_header Connection close;\n" in site


def test_every_disk_in_the_app_folder_has_its_place_in_nginx(shipped_settings: Settings) -> None:
    site = render(SITE)[Path("/etc/nginx/conf.d/shop.conf")]
    places = dict(re.findall(r"location \^~ /protected/(\w+)/ \{\s+alias /srv/shop/shared/(\S+)/;", site))
    assert places == shipped_settings.storage.disks


def test_services_of_one_host_do_not_get_in_each_other_s_way() -> None:
    one, other = render(SITE), render(replace(SITE, slug="blog", host="blog.test", root=Path("/srv/blog")))
    common = one.keys() & other.keys()
    assert [path.name for path in common] == ["default-closed.conf"]
    assert all(one[path] == other[path] for path in common)
    named = [
        set(re.findall(r"^map \S+ (\S+)|shared:(\w+):", "\n".join(files.values()), re.MULTILINE))
        for files in (one, other)
    ]
    assert named[0]
    assert not named[0] & named[1]


def test_the_tool_and_the_service_read_the_same_settings(shipped_settings: Settings, tmp_path: Path) -> None:
    site, deploy = load_site(ROOT, tmp_path), shipped_settings.deploy
    assert site.slug == shipped_settings.app.slug
    assert site.root == tmp_path / site.slug
    assert {name: getattr(site, name) for name in deploy.__struct_fields__} == {
        name: getattr(deploy, name) for name in deploy.__struct_fields__
    }


def test_an_installation_s_own_values_go_before_the_project_s(tmp_path: Path) -> None:
    site = load_site(srv=overlaid(tmp_path, "[deploy]\nhost = shop.test\nkeep = 7\n"))
    assert (site.host, site.keep, site.user) == ("shop.test", 7, "www-data")


@pytest.mark.parametrize(
    "text",
    [
        "host = shop.test\n",
        "[deploy]\nhost\n",
        "[deploy]\nkeep = many\n",
        "[deploy]\nhosts = shop.test\n",
        "[deploy]\nhost = a\nhost = b\n",
    ],
)
def test_settings_that_cannot_be_read_are_one_line(tmp_path: Path, text: str) -> None:
    srv = overlaid(tmp_path, text)
    with pytest.raises(Failure) as failure:
        load_site(srv=srv)
    assert failure.value.code == BAD_INPUT
    assert str(failure.value).startswith(f"{srv / load_site().slug / 'shared/config/deploy.ini'}: ")
    assert "\n" not in str(failure.value)
