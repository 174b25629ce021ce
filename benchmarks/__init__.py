"""What is promised, measured: `make bench`, or `make bench ARGS="web storage"` for some of it."""

from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
