"""`config show` of `main.py`, on the settings of an installation of its own."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config import AppDir
from main import cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppDir:
    folder = AppDir(tmp_path / "app")
    folder.make()
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("APP_DIR", str(folder.path))
    for name in ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL", "PORT"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["config", *arguments])


def secret_of(folder: AppDir) -> str:
    return folder.env_file.read_text().strip().removeprefix("SECRET_KEY=")


def test_show_prints_each_value_with_its_source(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SECURITY__TRUSTED_HOSTS", '["a.example"]')
    lines = run("show").output.splitlines()
    assert lines[:2] == ["environment: production", f"app folder:  {folder.path}"]
    assert "web.port = 8000  config/web.ini" in lines
    assert "security.cookie_secure = true  config/production/security.yaml" in lines
    assert 'logging.formatters.json.() = "app.logs.JsonLine"  config/logging.json' in lines
    assert 'app.secret_key = "***"  config/app.yaml' in lines
    assert "database.timeout = 10.0  config/database.yaml" in lines
    assert 'security.trusted_hosts = ["a.example"]  environment variable APP_SECURITY__TRUSTED_HOSTS' in lines


def test_show_masks_secrets_and_passwords_in_urls(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:p@ss:w/rd@host/name")
    monkeypatch.setenv("QUEUE_URL", "redis://:p@ss@host")
    monkeypatch.setenv(
        "STORAGE_URL", "s3://bucket?region=eu&access_key=p@ss&AWS_SECRET_ACCESS_KEY=p@ss&session_token=p@ss"
    )
    output = run("show").output
    for shown in ("***", "postgresql://me:***@host/name", "redis://:***@host"):
        assert json.dumps(shown) in output
    assert '"s3://bucket?region=eu&access_key=***&AWS_SECRET_ACCESS_KEY=***&session_token=***"' in output
    assert "p@ss" not in output
    assert secret_of(folder) not in output
