"""The entry points: what they take from the settings, and what they say if they cannot start."""

import os
import re
import runpy
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import prometheus_client  # noqa: F401  (where it is imported already, gunicorn.conf.py makes no folder for it)
import pytest
import svcs
from click.testing import CliRunner
from flask import Flask
from flask.cli import cli as flask_cli

from config import ROOT, Settings
from main import cli


@pytest.fixture
def here(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Gives this process the variables of an installation."""
    for name in ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL", "PORT", "LISTEN_FDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APP_ENV", "testing")
    monkeypatch.setenv("APP_DIR", str(settings.app_dir.path))
    return monkeypatch


def test_gunicorn_takes_its_settings_from_the_projects(here: pytest.MonkeyPatch) -> None:
    here.setenv("APP_WEB__WORKERS", "3")
    here.setenv("APP_WEB__RELOAD", "true")
    here.setenv("PORT", "9000")
    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    assert gunicorn["bind"] == "[127.0.0.1]:9000"
    assert (gunicorn["workers"], gunicorn["reload"], gunicorn["preload_app"]) == (3, True, False)


def test_on_systemds_socket_gunicorn_takes_only_the_connections_that_it_can_answer_soon(
    here: pytest.MonkeyPatch,
) -> None:
    here.setenv("APP_WEB__THREADS", "3")
    assert "worker_connections" not in runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    here.setenv("LISTEN_FDS", "1")
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["worker_connections"] == 6


def test_no_visitor_waits_until_templates_are_compiled(
    here: pytest.MonkeyPatch, make_app: Callable[..., Flask]
) -> None:
    templates = (app := make_app()).jinja_env
    templates.cache = {}
    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    gunicorn["on_starting"](SimpleNamespace(app=SimpleNamespace(wsgi=lambda: app)))
    assert {name for _, name in templates.cache} == set(templates.list_templates(["html"]))


@pytest.mark.parametrize(
    ("reload", "procfile"), [("false", "Procfile"), ("true", "Procfile.dev")], ids=["production", "development"]
)
def test_without_a_command_honcho_starts_what_the_procfile_says(
    here: pytest.MonkeyPatch, reload: str, procfile: str
) -> None:
    started: list[Any] = []
    here.setenv("APP_WEB__RELOAD", reload)
    here.setenv("APP_WEB__PORT", "9000")
    here.setattr("honcho.command.main", started.append)
    here.setattr(signal, "signal", lambda *_: None)
    here.setattr(os, "chdir", lambda _: None)
    assert CliRunner().invoke(cli).exit_code == 0
    assert started == [["--procfile", procfile, "start", "--port", "9000"]]
    lines = (ROOT / procfile).read_text().splitlines()
    assert [line.partition(":")[0] for line in lines][:3] == ["web", "queue", "scheduler"]


def test_flask_finds_the_app(here: pytest.MonkeyPatch) -> None:
    here.delitem(sys.modules, "web", raising=False)
    result = CliRunner().invoke(flask_cli, ["--app", "web", "routes"])
    svcs.flask.close_registry(sys.modules["web"].app)
    here.delitem(sys.modules, "web")
    assert result.exit_code == 0
    assert re.search(r"accounts\.login +GET, POST +/login", result.output)


@pytest.mark.parametrize("workers", ["2", "many"], ids=["right", "wrong"])
def test_help_lists_what_there_is_also_while_settings_are_wrong(here: pytest.MonkeyPatch, workers: str) -> None:
    here.setenv("APP_WEB__WORKERS", workers)
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    listed = re.findall(r"^  ([a-z]+) ", result.output.partition("Commands:")[2], re.MULTILINE)
    assert listed[:6] == ["check", "appdir", "config", "db", "backup", "storage"]
    assert ("queue" in listed) == (workers == "2")


def test_a_wrong_setting_is_a_line_on_the_command_line_too(here: pytest.MonkeyPatch) -> None:
    here.setenv("APP_WEB__WORKERS", "many")
    for command in (["config", "show"], ["queue", "status"]):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 2
        [line] = result.output.splitlines()
        assert line.startswith("environment variable APP_WEB__WORKERS: web.workers: expected int")
