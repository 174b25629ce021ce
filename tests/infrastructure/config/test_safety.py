"""What `require_safe` refuses, and that the command it names mends it."""

import secrets
from pathlib import Path

import pytest

from config import AppDir, ConfigError, Settings, exit_on_problems, load, require_safe

MEND_SECRET = "run `python main.py appdir make`, which writes one into the app folder's .env"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppDir:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    folder = AppDir(tmp_path / "app")
    folder.make()
    return folder


def settings_of(folder: AppDir, **environ: str) -> Settings:
    return load({"APP_ENV": "production", "APP_DIR": str(folder.path), **environ})


def problems(settings: Settings) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        require_safe(settings)
    return tuple(str(caught.value).splitlines())


def test_production_accepts_32_random_bytes_as_made_or_in_usual_spellings(folder: AppDir) -> None:
    made = settings_of(folder)
    require_safe(made)
    require_safe(settings_of(folder, SECRET_KEY=secrets.token_urlsafe(32)))
    # Of random ones, every fourth lacks a digit or more.
    require_safe(settings_of(folder, SECRET_KEY="0123456789ab" * 5 + "0123"))
    assert len(made.app.secret_key) == 43


def test_production_refuses_a_weak_secret(folder: AppDir) -> None:
    for secret in ("x", secrets.token_urlsafe(20), "x" * 64, "0123456789" * 8):
        assert problems(settings_of(folder, SECRET_KEY=secret)) == (
            "config/app.yaml: app.secret_key: found a weak secret, expected 32 random bytes; "
            "remove SECRET_KEY and run `python main.py appdir make`",
        )


def test_production_keeps_no_files_in_memory(folder: AppDir) -> None:
    for variable, key in (("STORAGE_URL", "url"), ("APP_STORAGE__DISKS__MEDIA", "media")):
        [line] = problems(settings_of(folder, **{variable: "memory://"}))
        assert (
            line == f"config/storage.*: storage {key}: found memory://, expected a place that keeps files in production"
        )


@pytest.mark.parametrize("environment", ["development", "production"])
def test_no_service_starts_without_a_secret(folder: AppDir, environment: str) -> None:
    folder.env_file.unlink()
    settings = settings_of(folder, APP_ENV=environment)
    assert problems(settings) == (f"config/app.yaml: app.secret_key: SECRET_KEY is not set; {MEND_SECRET}",)


@pytest.mark.parametrize("env_file", [None, "PORT=9000", "SECRET_KEY=\nPORT=9000\n"])
def test_the_named_command_mends_a_missing_secret(folder: AppDir, env_file: str | None) -> None:
    folder.env_file.unlink()
    if env_file:
        folder.env_file.write_text(env_file)
    folder.make()
    settings = settings_of(folder)
    require_safe(settings)
    assert settings.web.port == (9000 if env_file else 8000)


def test_production_refuses_debug(folder: AppDir) -> None:
    assert problems(settings_of(folder, APP_APP__DEBUG="true")) == (
        "environment variable APP_APP__DEBUG: app.debug: found true, expected false in production",
    )


def test_production_refuses_what_others_may_write_and_a_secret_they_may_read(folder: AppDir) -> None:
    overlay = folder.config / "logging.json"
    overlay.write_text("{}")
    for path in (folder.path, folder.config, overlay, folder.data):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        assert problems(settings_of(folder)) == (f"{path}: others may reach it; run `chmod o-w {path}`",)
        path.chmod(mode)
    folder.env_file.chmod(0o604)
    assert problems(settings_of(folder)) == (
        f"{folder.env_file}: others may reach it; run `chmod o= {folder.env_file}`",
    )


def test_another_name_in_the_settings_makes_no_other_application(folder: AppDir) -> None:
    require_safe(settings_of(folder, APP_APP__SLUG="renamed"))


def test_production_refuses_a_missing_app_folder(tmp_path: Path) -> None:
    settings = settings_of(AppDir(tmp_path / "none"), SECRET_KEY=secrets.token_urlsafe(32))
    assert problems(settings) == (f"{tmp_path}/none: the app folder is missing; run `python main.py appdir make`",)


def test_all_that_is_unsafe_is_reported_at_once(folder: AppDir) -> None:
    folder.path.chmod(0o777)
    assert len(problems(settings_of(folder, SECRET_KEY="x", APP_APP__DEBUG="1"))) == 3


def test_development_may_debug_with_any_secret_in_an_open_folder(folder: AppDir) -> None:
    folder.path.chmod(0o777)
    settings = settings_of(folder, APP_ENV="development", SECRET_KEY="x", APP_APP__DEBUG="true")
    require_safe(settings)
    assert settings.app.debug


@pytest.mark.parametrize("variable", ["APP_QUEUE__THREADS", "SECRET_KEY"])
def test_an_entry_point_exits_with_2_and_the_problems(
    folder: AppDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("APP_DIR", str(folder.path))
    monkeypatch.setenv(variable, "x")
    with pytest.raises(SystemExit) as stopped, exit_on_problems():
        require_safe(load())
    assert stopped.value.code == 2
    assert variable in capsys.readouterr().err
