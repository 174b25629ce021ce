"""What load balancers and operators ask."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import svcs
from alembic import command
from flask import Flask
from sqlalchemy import Engine

from app.services import transaction
from config import Settings, project_release
from database.broker import DatabaseBroker
from database.migrations import alembic_config
from storage.disks import Disks

GOOD = {"database": "ok", "migrations": "ok", "queue": "ok", "storage": "ok"}


def test_a_service_is_ready_when_all_its_parts_are(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json == {"status": "ok", "checks": GOOD, "release": None}
    assert "app.request" not in capsys.readouterr().err  # Probes come all the time, and are not logged.


@pytest.mark.parametrize(("service", "name"), [(Engine, "database"), (Disks, "storage"), (DatabaseBroker, "queue")])
def test_a_service_is_not_ready_while_one_part_fails(app: Flask, client: Any, service: type[Any], name: str) -> None:
    def fail(_service: object) -> None:
        raise ConnectionError("postgresql://user:password@host")

    with app.app_context():
        part: object = svcs.flask.get(service)
    svcs.flask.register_value(app, service, part, ping=fail)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json["status"] == "failed"
    assert response.json["checks"] == {**GOOD, name: "failed: ConnectionError"}


def test_a_failure_and_its_end_are_logged_once(app: Flask, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with app.app_context():
        disks = svcs.flask.get(Disks)
    for failing in (True, True, False, False):
        svcs.flask.register_value(app, Disks, disks, ping=(lambda _disks: 1 / 0) if failing else Disks.check)
        client.get("/readyz")
    messages = [record.getMessage() for record in caplog.records if record.name == "app.ops.views"]
    assert messages == ["not ready: storage: ZeroDivisionError: division by zero", "ready again: storage"]


def test_pending_migrations_say_what_to_run(app: Flask, client: Any) -> None:
    with transaction(app) as session:
        command.downgrade(alembic_config(session.get_bind().engine), "infrastructure@-1")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json["checks"]["migrations"].endswith("Run: python main.py db upgrade")


def test_without_a_database_it_lives_and_is_not_ready(app: Flask, client: Any, settings: Settings) -> None:
    with app.app_context():
        svcs.flask.get(Engine).dispose()
    shutil.rmtree(settings.app_dir.data)
    assert client.get("/livez").json == {"status": "ok"}
    response = client.get("/readyz")
    assert response.status_code == 503
    failed = {name for name, result in response.json["checks"].items() if result != "ok"}
    assert failed == {"database", "migrations", "queue"}


def test_the_version_is_the_projects(client: Any, settings: Settings) -> None:
    project = tomllib.loads((settings.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert client.get("/version").json == {"service": settings.app.slug, "version": project["version"], "release": None}


def test_a_release_says_which_one_it_is(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "RELEASE").write_text("20261120120000\n")
    monkeypatch.setattr("app.ops.views.project_release", lambda _root: project_release(tmp_path))
    for page in ("/version", "/readyz"):
        assert client.get(page).json["release"] == "20261120120000"
