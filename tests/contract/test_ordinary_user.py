"""``make check`` in a fresh copy, as a user who owns only that copy, a home and a cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
NOT_COPIED = shutil.ignore_patterns(".git", ".*_cache", ".hypothesis", "__pycache__", "build")
# What tells pip about this machine's network.
KEPT = ("PIP_", "SSL_", "http", "HTTP", "no_proxy", "NO_PROXY")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home outside of pytest's own directories, which only root may enter."""
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-user-"))
    shutil.copytree(ROOT, directory / "noderuntime", ignore=NOT_COPIED, symlinks=True)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", directory], check=True)
    yield directory
    shutil.rmtree(directory)


def test_make_check_passes_without_root(home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    done = subprocess.run(
        [
            "timeout",
            "800",
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "make",
            "check",
        ],
        cwd=home / "noderuntime",
        env=environment | {"HOME": str(home), "PATH": "/usr/bin:/bin", "CI": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
    assert (home / ".cache/noderuntime/venv").is_dir()
