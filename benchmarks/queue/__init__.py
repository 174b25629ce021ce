"""How fast the queue is, and what it loses: `make bench` runs it, `python -m benchmarks.queue claim kills` a part."""

import importlib.util
import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent.parent
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"

# The processes that are measured have a generated project on their path; this is the one that measures.
if not importlib.util.find_spec("database"):
    sys.path.append(str(PROJECT))
    sys.dont_write_bytecode = True
