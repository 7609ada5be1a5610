"""buildah with a separate store: the machine's other images are neither read nor changed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("NODERUNTIME_CACHE", Path.home() / ".cache/noderuntime"))
STORE = CACHE / "image/store"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Lock the store: one build could prune what another build is about to use."""
    STORE.parent.mkdir(parents=True, exist_ok=True)
    with (STORE.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def buildah(*arguments: str) -> str:
    """Run buildah and return its output."""
    return run(*_command(arguments))


def works(*arguments: str) -> bool:
    """Return whether buildah succeeds; its output is dropped."""
    return subprocess.run(_command(arguments), capture_output=True, check=False).returncode == 0


def push(image: str, *, tls_verify: bool, to: str | None = None, form: str = "oci") -> None:
    """Push an image to its name or another one; form is oci or v2s2 (Docker's schema 2)."""
    options = (f"--format={form}", f"--tls-verify={str(tls_verify).lower()}")
    buildah("push", "--quiet", *options, image, f"docker://{to or image}")


def run(*command: str) -> str:
    """Run a command and return its standard output; standard error is not captured.

    Raises SystemExit with the command and its status when it fails.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout.strip()


def _command(arguments: tuple[str, ...]) -> list[str]:
    return ["buildah", f"--root={STORE}", "--runroot=/run/noderuntime-image", *arguments]
