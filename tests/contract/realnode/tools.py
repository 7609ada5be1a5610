"""Paths of the real tools. A missing tool fails the test that needs it, with its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CACHE_BIN = Path(os.environ.get("NODERUNTIME_CACHE", Path.home() / ".cache/noderuntime")) / "bin"


def tool(name: str) -> Path:
    """Return the program from the project's cache or from PATH."""
    cached = CACHE_BIN / name
    found = str(cached) if cached.exists() else shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is needed: neither in {CACHE_BIN} nor on PATH (make setup)")
    return Path(found)
