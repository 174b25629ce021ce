"""What is promised, measured: `make bench`, or `make bench ARGS="web storage"` for some of it."""

import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
# Parts of the project are measured where they are, some with what the tests have for that.
sys.path += [str(PROJECT), str(TEMPLATE / "tests")]
sys.dont_write_bytecode = True
