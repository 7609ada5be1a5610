"""Make the Python venv of tests and tools: no root, no packages of the system but Python with venv.

Every package of requirements.lock is checked against its hashes; the project itself is installed
editable. The venv is ``$NODERUNTIME_CACHE/venv`` (default ``~/.cache/noderuntime/venv``). A second
run does nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("NODERUNTIME_CACHE") or Path.home() / ".cache" / "noderuntime")
VENV = CACHE / "venv"
LOCK = REPO / "requirements.lock"
PYTHON = os.path.realpath(sys.executable)


def main() -> int:
    """Make the venv; report a failure on one line and return 1."""
    try:
        make_venv()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"venv: {error}", file=sys.stderr)
        return 1
    return 0


def make_venv() -> None:
    """Make the venv, or update it after the lock, the project's metadata or the checkout changed."""
    stamp, key = VENV / ".pins", _key()
    if stamp.exists() and stamp.read_text() == key:
        return
    print(f"venv: Python packages into {VENV}", flush=True)
    clear = not (stamp.exists() and _has_this_python())
    stamp.unlink(missing_ok=True)  # what fails from here on is cleared by the next run
    _run(PYTHON, "-m", "venv", *(["--clear"] if clear else []), str(VENV))
    pip = (str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "--require-hashes", f"--requirement={LOCK}")
    # hatchling comes from the lock, so that building needs no download that is not checked.
    _run(*pip, "--no-deps", "--no-build-isolation", f"--editable={REPO}")
    stamp.write_text(key)


def _has_this_python() -> bool:
    """Return whether the venv was made from this interpreter; packages of another do not work with it."""
    config = VENV / "pyvenv.cfg"
    return config.exists() and f"executable = {PYTHON}" in config.read_text().splitlines()


def _key() -> str:
    """Return a digest of everything that the venv is made from."""
    inputs = f"{REPO} {PYTHON}".encode()
    return hashlib.sha256(LOCK.read_bytes() + (REPO / "pyproject.toml").read_bytes() + inputs).hexdigest()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
