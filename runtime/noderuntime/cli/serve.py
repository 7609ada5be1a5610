"""``noderuntime serve``: Run the CRI runtime until SIGTERM. SIGHUP reloads the configuration."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from noderuntime import app
from noderuntime.config import CONFIG_FILE
from noderuntime.core import loop

_UMASK = 0o022
"""For the whole life of the process: what a thread creates must not depend on another thread."""


def run(arguments: Sequence[str]) -> int:
    """Run the daemon until SIGTERM."""
    os.umask(_UMASK)
    parser = argparse.ArgumentParser(
        prog="noderuntime serve",
        description="Run the CRI runtime until SIGTERM. SIGHUP reloads the configuration.",
    )
    parser.add_argument(
        "--config", type=Path, default=CONFIG_FILE, help="configuration file (default: %(default)s)"
    )
    loop.run(app.run(parser.parse_args(arguments).config))
    return 0
