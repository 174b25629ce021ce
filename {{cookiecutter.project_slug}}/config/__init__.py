"""Settings: read from `config/`, overlaid by environment and app folder, checked by type.

Later ones win: `config/<section>.*`, `config/<environment>/<section>.*`, `<app folder>/config/<section>.*`,
then environment variables `APP_<SECTION>__<KEY>`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from config.appdir import PARTS, ROOT, AppDir
from config.errors import ConfigError
from config.loading import feature_names, find_app_dir, load, project_release, project_version
from config.masking import mask, printable
from config.safety import require_safe
from config.settings import SECTIONS, Settings

__all__ = [
    "PARTS",
    "ROOT",
    "SECTIONS",
    "AppDir",
    "ConfigError",
    "Settings",
    "exit_on_problems",
    "feature_names",
    "find_app_dir",
    "load",
    "mask",
    "printable",
    "project_release",
    "project_version",
    "require_safe",
]


@contextmanager
def exit_on_problems() -> Iterator[None]:
    """Around the start of an entry point: wrong settings go to standard error, a line each, and the exit code is 2."""
    try:
        yield
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
