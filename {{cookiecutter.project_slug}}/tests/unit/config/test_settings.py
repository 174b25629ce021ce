"""What the service relies on: layers that overlay each other, and mistakes that are one line each."""

from pathlib import Path

import pytest

from config import ConfigError, load


def environment(app_dir: Path, **variables: str) -> dict[str, str]:
    return {"APP_ENV": "testing", "APP_DIR": str(app_dir), **variables}


def test_the_app_folder_wins_over_the_project_and_a_variable_over_both(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/queue.yaml").write_text("threads: 3\nprocesses: 2\n")
    settings = load(environment(tmp_path, APP_QUEUE__THREADS="5"))
    assert (settings.queue.threads, settings.queue.processes) == (5, 2)
    assert "APP_QUEUE__THREADS" in settings.origins["queue.threads"]


def test_mistakes_are_told_together_with_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/queue.yaml").write_text("threads: many\n")
    with pytest.raises(ConfigError) as caught:
        load(environment(tmp_path, APP_WEB__PORT="eighty"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert any("config/queue.yaml: queue.threads" in line and "'many'" in line for line in lines)
    assert any("APP_WEB__PORT" in line and "eighty" in line for line in lines)
