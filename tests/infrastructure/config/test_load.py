"""What `load` makes of config files and environment variables, in a project whose files a test may change."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from config import ROOT, SECTIONS, AppDir, ConfigError, Settings, load

KNOWN = [*SECTIONS, *sorted(path.parent.name for path in ROOT.glob("app/*/settings.py"))]
# Values that a shell, YAML, INI, dotenv or our own ${…} could take for something else.
SECRETS = ["a #b", "0123", "p: w", "{x", "%x", "%(x)s", "yes", "null", "*star", "two\nlines", "${OTHER}", "'\"\\"]


class Project:
    """A copy of the real config files."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(ROOT / "config", root / "config", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)
        (root / "app").symlink_to(ROOT / "app")
        self.root = root

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def load(self, **environ: str) -> Settings:
        return load(environ, self.root)

    def problems(self, **environ: str) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            self.load(**environ)
        return tuple(str(caught.value).splitlines())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def test_each_layer_wins_over_the_one_before(project: Project) -> None:
    seen = [project.load().database.timeout]
    project.write("config/development/database.yaml", "timeout: 2")
    seen.append(project.load().database.timeout)
    project.write("instance/config/database.json", '{"timeout": 3}')
    seen.append(project.load().database.timeout)
    project.write("instance/.env", "APP_DATABASE__TIMEOUT=4")
    seen.append(project.load().database.timeout)
    seen.append(project.load(APP_DATABASE__TIMEOUT="5").database.timeout)
    assert seen == [10, 2, 3, 4, 5]


def test_every_key_knows_where_its_value_came_from(project: Project, tmp_path: Path) -> None:
    project.write("installation/config/queue.ini", "[queue]\nthreads = 3\n")
    settings = project.load(APP_DIR=str(project.root / "installation"), APP_WEB__PORT="9000")
    origins = settings.origins
    assert origins["queue.threads"] == "installation/config/queue.ini"
    assert origins["queue.lease"] == "config/queue.yaml"
    assert origins["web.reload"] == "config/development/web.ini"
    assert origins["web.port"] == "environment variable APP_WEB__PORT"


def test_an_overlay_replaces_single_keys_at_any_depth(project: Project) -> None:
    development, production = project.load(), project.load(APP_ENV="production")
    assert development.logging["handlers"]["console"]["formatter"] == "people"
    assert production.logging["handlers"]["console"] == {
        **development.logging["handlers"]["console"],
        "formatter": "json",
    }
    assert production.security.headers.keys() - development.security.headers.keys() == {"Strict-Transport-Security"}
    assert (development.security.cookie_secure, production.security.cookie_secure) == (False, True)


def test_a_section_may_be_written_in_every_format(project: Project) -> None:
    texts = {
        "yaml": "url: yaml://",
        "json": '{"url": "json://"}',
        "ini": "[storage]\nurl = ini://\n",
    }
    for suffix, text in texts.items():
        for other in (project.root / "config/development").glob("storage.*"):
            other.unlink()
        project.write(f"config/development/storage.{suffix}", text)
        assert project.load().storage.url == f"{suffix}://"


def test_variables_in_texts_and_lists_are_filled_in(project: Project) -> None:
    filled_in = {
        "${A}": "1",
        "${A:2}": "1",
        "${B:2}": "2",
        "${EMPTY:2}": "",
        "x-${A}${B:}-y": "x-1-y",
        "${B:http://host:1/}": "http://host:1/",
        "$A ${} ${1}": "$A ${} ${1}",
    }
    project.write("config/development/security.json", json.dumps({"trusted_hosts": list(filled_in)}))
    project.write("config/development/storage.yaml", "url: file://${A}")
    settings = project.load(A="1", EMPTY="")
    assert settings.security.trusted_hosts == list(filled_in.values())
    assert settings.storage.url == "file://1"


def through_environment(project: Project, secret: str) -> Settings:
    return project.load(SECRET_KEY=secret)


def through_env_file(project: Project, secret: str) -> Settings:
    quoted = secret.replace("\\", "\\\\").replace("'", "\\'")
    project.write("instance/.env", f"SECRET_KEY='{quoted}'\n")
    return project.load()


def through_own_variable(project: Project, secret: str) -> Settings:
    return project.load(APP_APP__SECRET_KEY=secret)


def through_secret_file(project: Project, secret: str) -> Settings:
    project.write("secret", f"{secret}\n")
    return project.load(APP_APP__SECRET_KEY__FILE=str(project.root / "secret"))


@pytest.mark.parametrize("way", [through_environment, through_env_file, through_own_variable, through_secret_file])
def test_a_secret_arrives_unchanged(project: Project, way: Callable[[Project, str], Settings]) -> None:
    assert [way(project, secret).app.secret_key for secret in SECRETS] == SECRETS


def test_variables_of_the_process_win_over_the_env_file(project: Project) -> None:
    project.write("instance/.env", "SECRET_KEY=file\nDATABASE_URL=sqlite:///file.db\nAPP_ENV=production\n")
    settings = project.load(SECRET_KEY="process")
    assert (settings.app.secret_key, settings.database.url) == ("process", "sqlite:///file.db")
    assert settings.environment == "production"


def test_variables_become_numbers_truth_lists_and_nested_keys(project: Project) -> None:
    settings = project.load(
        APP_WEB__PORT="9000",
        APP_DATABASE__TIMEOUT="0.5",
        APP_WEB__RELOAD="true",
        APP_SECURITY__TRUSTED_HOSTS='["a.example", "b.example"]',
        APP_SECURITY__ARGON2__TIME_COST="7",
        APP_NAME="not a setting: it names no section and key",
    )
    assert (settings.web.port, settings.database.timeout, settings.web.reload) == (9000, 0.5, True)
    assert settings.security.trusted_hosts == ["a.example", "b.example"]
    assert (settings.security.argon2.time_cost, settings.security.argon2.parallelism) == (7, 4)


def test_settings_cannot_be_changed(project: Project) -> None:
    settings = project.load()
    with pytest.raises(AttributeError):
        settings.app.debug = True  # type: ignore[misc]


def test_the_app_folder_is_in_the_project_under_srv_or_where_app_dir_says(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    development = project.load()
    assert development.app_dir == AppDir(project.root / "instance")
    assert project.load(APP_ENV="production").app_dir == AppDir(Path("/srv", development.app.slug, "shared"))
    assert project.load(APP_ENV="production", APP_DIR="here").app_dir == AppDir(tmp_path / "here")


# An overlay for development, and the line that says what is wrong with it.
MISTAKES = [
    ("database.yaml", "timeout: soon", "database.timeout: expected float, found 'soon'"),
    ("storage.yaml", "disks: {more: 5}", "storage.disks.more: expected str, found 5; put it in quotes"),
    ("storage.yaml", "disks: {media: ''}", "storage.disks.media: expected str of length >= 1, found ''"),
    ("storage.yaml", "url: 12", "storage.url: expected str, found 12; put it in quotes"),
    ("web.ini", "[web]\nport = 99999", "web.port: expected int <= 65535, found '99999'"),
    (
        "security.json",
        '{"trusted_hosts": ["a", 1]}',
        "security.trusted_hosts[1]: expected str; put it in quotes",
    ),
    ("security.yaml", "argon2: strong", "security.argon2: expected object, found 'strong'"),
    ("storage.yaml", "url: {a: 1}", "storage.url: expected str; put it in quotes"),
    ("storage.yaml", "uri: x", "storage.uri: unknown key, expected one of url, disks, accel_redirect"),
    (
        "security.yaml",
        "argon2: {speed: 1}",
        "security.argon2.speed: unknown key, expected one of time_cost, memory_cost, parallelism",
    ),
    ("nonsense.yaml", "host: x", f"nonsense: unknown section, expected one of {', '.join(KNOWN)}"),
    ("storage.yaml", "1: x", "storage.1: unknown key, expected one of url, disks, accel_redirect"),
    ("storage.yaml", "- url", "expected keys with values, found list"),
    (
        "storage.yaml",
        "url: ${BUCKET}",
        "${BUCKET} is not set; set it in the environment or the app folder's .env",
    ),
]


def test_a_mistake_is_one_line_with_file_key_found_and_expected(project: Project) -> None:
    for file, text, line in MISTAKES:
        source = f"config/development/{file}"
        project.write(source, text)
        assert project.problems() == (f"{source}: {line}",)
        (project.root / source).unlink()


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("yaml", "url: x\n\tother: y\n"),
        ("yaml", "url: x\nurl: *nothing\n"),
        ("json", '{"url":\nnothing}'),
        ("ini", "[storage]\nurl\n"),
        ("ini", "[storage]\n[storage]\n"),
        ("ini", "\nurl = x\n"),
    ],
)
def test_bad_syntax_is_one_line_with_file_and_line_number(project: Project, suffix: str, text: str) -> None:
    project.write(f"config/development/storage.{suffix}", text)
    (problem,) = project.problems()
    assert problem.startswith(f"config/development/storage.{suffix}")
    assert f"cannot be read as {suffix.upper()}: " in problem
    assert re.search(r"\bline:? 2\b", problem)


def test_what_is_no_text_or_no_value_is_one_line_too(project: Project) -> None:
    reasons = {
        b"url: \xff": "cannot be read as YAML",
        b"url: \x00": "cannot be read as YAML",
        b"url: 2026-02-31": "cannot be read as YAML",
    }
    for content, reason in reasons.items():
        (project.root / "config/storage.yaml").write_bytes(content)
        (problem,) = project.problems()
        assert problem.startswith(f"config/storage.yaml: {reason}")


def test_an_env_file_that_is_no_text_is_named(project: Project) -> None:
    project.write("instance/.env", "")
    (project.root / "instance/.env").write_bytes(b"A=\xff")
    (problem,) = project.problems()
    assert problem.startswith(f"{project.root}/instance/.env: cannot be read: ")


def test_a_wrong_name_of_the_service_is_found_even_where_the_app_folder_is_named_after_it(project: Project) -> None:
    text = (project.root / "config/app.yaml").read_text()
    project.write("config/app.yaml", re.sub("(?m)^slug: .*", "slug: 2026", text))
    problem = "config/app.yaml: app.slug: expected str, found 2026; put it in quotes"
    assert project.problems(APP_ENV="production") == (problem,)


def test_a_missing_file_and_missing_keys_are_named(project: Project) -> None:
    (project.root / "config/storage.yaml").unlink()
    project.write("config/telemetry.yaml", "sentry_dsn: ''")
    assert project.problems() == (
        "config/: storage.url: is missing",
        "config/: storage.disks: is missing",
        "config/: storage.accel_redirect: is missing",
        "config/telemetry.yaml: telemetry.metrics_token: is missing",
    )


def test_a_wrong_variable_is_one_line_with_its_name(project: Project) -> None:
    lines = {
        ("APP_ENV", "prod"): "APP_ENV: found 'prod', expected one of development, testing, production",
        ("PORT", "http"): "config/web.ini: web.port: expected int, found 'http'",
        ("APP_SECURITY__TRUSTED_HOSTS", "[a]"): (
            "environment variable APP_SECURITY__TRUSTED_HOSTS: security.trusted_hosts: expected array, found '[a]'"
        ),
        ("APP_STORAGE__URI", "x"): "environment variable APP_STORAGE__URI: storage.uri: unknown key",
        ("APP_WEB__HOST__FILE", "/none"): "environment variable APP_WEB__HOST__FILE: /none cannot be read",
    }
    for (name, value), line in lines.items():
        (problem,) = project.problems(**{name: value})
        assert problem.startswith(line)


def test_all_problems_are_reported_at_once(project: Project) -> None:
    project.write("config/development/queue.yaml", "threads: 0\nspeed: 1\n")
    project.write("config/development/nonsense.yaml", "host: a\nport: 1\n")
    starts = (
        "config/development/nonsense.yaml: nonsense: unknown section, expected one of app, ",
        "config/development/queue.yaml: queue.speed: unknown key, expected one of url, ",
        "config/development/queue.yaml: queue.threads: expected int >= 1, found 0",
        "environment variable APP_WEB__PORT: web.port: expected int, found 'x'",
    )
    problems = sorted(project.problems(APP_WEB__PORT="x"))
    assert [problem.startswith(start) for problem, start in zip(problems, starts, strict=True)] == [True] * 4


def test_a_secret_of_the_wrong_type_is_not_shown(project: Project) -> None:
    project.write("config/development/app.yaml", "secret_key: 123456789")
    assert project.problems() == (
        "config/development/app.yaml: app.secret_key: expected str, found '***'; put it in quotes",
    )


def test_an_older_secret_stays_valid_beside_a_new_one(project: Project) -> None:
    assert project.load(SECRET_KEY_FALLBACKS='["old", "older"]').app.secret_key_fallbacks == ["old", "older"]


def test_what_is_usual_in_env_files_is_read(project: Project) -> None:
    project.write("instance/.env", "\ufeff# comment\n\nexport PORT = 8001\nSECRET_KEY='${HOME} \"x\"'\n")
    settings = project.load()
    assert (settings.web.port, settings.app.secret_key) == (8001, '${HOME} "x"')


def test_a_broken_line_of_an_env_file_is_named_without_its_value(project: Project) -> None:
    project.write("instance/.env", 'PORT=1\nTOKEN="hunter2\nSECRET_KEY\n')
    problems = project.problems()
    assert problems[0] == f"{project.root}/instance/.env:2: expected NAME=value"
    assert not any("hunter2" in problem for problem in problems)
