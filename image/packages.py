"""Unpack the image's Python packages for the Python of its Debian release."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from pathlib import Path

from buildah import CACHE, SOURCE, run

LOCK = SOURCE / "requirements.lock"
EXTRAS = {"runtime": ("runtime", "tracing"), "operator": ("operator",)}
"""What each part of the image has; a node cannot install anything into its bundle."""
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_36"  # bookworm's
# Files of wheels that only developers use, and uv's lock.
LEFT_OUT = (".lock", "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "tests", "test", "docs")


def packages() -> Path:
    """Return a directory with runtime/ and operator/, installed once per lock file."""
    extras = _extras()
    inputs = LOCK.read_bytes() + Path(__file__).read_bytes() + repr(extras).encode()
    home = CACHE / "image" / f"packages-{hashlib.sha256(inputs).hexdigest()[:16]}"
    if not home.is_dir():
        partial = home.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for extra, requirements in extras.items():
            _install(requirements, partial / extra)
        partial.rename(home)
    return home


def _extras() -> dict[str, list[str]]:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = project["optional-dependencies"]
    return {
        part: [package for extra in extras for package in packages[extra]] for part, extras in EXTRAS.items()
    }


def _install(requirements: list[str], target: Path) -> None:
    """Unpack wheels, checked against the hashes of the lock, into target; remove files that no program reads.

    uv and not pip, which ignores hashes in a constraints file and evaluates markers for the running Python.
    """
    run(
        *(str(CACHE / "venv/bin/uv"), "pip", "install", "--quiet", "--no-build", "--link-mode=copy"),
        *(f"--python={sys.executable}", f"--python-version={PYTHON}", f"--python-platform={PLATFORM}"),
        *("--require-hashes", f"--constraint={LOCK}", f"--target={target}", *requirements),
    )
    shutil.rmtree(target / "bin", ignore_errors=True)
    for path in [path for pattern in LEFT_OUT for path in target.rglob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
