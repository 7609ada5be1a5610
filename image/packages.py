"""The Python packages of the image, unpacked by pip for Debian's Python whatever Python runs this."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from pathlib import Path

from buildah import CACHE, run

SOURCE = Path(__file__).resolve().parent.parent
CONSTRAINTS = SOURCE / "image/constraints.txt"
GLIBC_MINORS = (36, 35, 34, 31, 28, 27, 24, 17, 5)  # bookworm has 2.36; wheels name the oldest they run on
# What wheels carry for developers, beside what the pinned versions name otherwise.
LEFT_OUT = ("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "tests", "test", "docs")


def packages() -> Path:
    """Return a directory with runtime/ and operator/, installed once per set of versions."""
    key = hashlib.sha256(CONSTRAINTS.read_bytes() + Path(__file__).read_bytes())
    extras = _extras()
    for extra in ("runtime", "operator"):
        key.update(repr(sorted(extras[extra])).encode())
    home = CACHE / "image" / f"packages-{key.hexdigest()[:16]}"
    if not home.is_dir():
        partial = home.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for extra in ("runtime", "operator"):
            _install(extras[extra], partial / extra)
        partial.rename(home)
    return home


def _extras() -> dict[str, list[str]]:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return extras


def _install(requirements: list[str], target: Path) -> None:
    """Unpack wheels into target and remove what no program reads."""
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"),
        *("--python-version=3.11", "--implementation=cp", "--platform=manylinux2014_x86_64"),
        *(f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS),
        *(f"--constraint={CONSTRAINTS}", f"--target={target}", *requirements),
    )
    shutil.rmtree(target / "bin", ignore_errors=True)
    for path in [path for pattern in LEFT_OUT for path in target.rglob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
