"""``noderuntime serve``: the daemon."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from noderuntime import app
from noderuntime.config import CONFIG_FILE


def run(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="noderuntime serve", description=app.__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG_FILE, help="default: %(default)s")
    asyncio.run(app.run(parser.parse_args(arguments).config))
    return 0
