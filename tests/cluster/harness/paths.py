"""Paths of the programs and of the files that the harness creates."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("NODERUNTIME_CACHE") or Path.home() / ".cache" / "noderuntime")
BIN = CACHE / "bin"
CLUSTERS = CACHE / "clusters"
RUN = Path("/run/noderuntime-harness")


class MissingToolError(RuntimeError):
    """A program that `make setup` installs is missing."""


def tool(name: str) -> str:
    """Return the path of a program; built programs come before PATH."""
    found = shutil.which(name, path=str(BIN)) or shutil.which(name, path=_search_path())
    if found is None:
        raise MissingToolError(f"{name} is neither in {BIN} nor on PATH: run make setup")
    return found


def _search_path() -> str:
    """Return PATH with the sbin directories, which a user's PATH may not contain."""
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
