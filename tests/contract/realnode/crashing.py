"""Pulls that are killed before their Nth step, for N from 1 until one completes, each with a retry after it.

    python crashing.py DIRECTORY REGISTRY REPOSITORY:TAG IMAGE_ID

A step is whatever changes a file of the store: Python tells of calls that open, make, rename or remove one;
writes to layers and transactions of the catalog are reported here. Prints one line of JSON for each step.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noderuntime.core.database import Database
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.registry.client import Registry
from noderuntime.images.registry.hosts import Hosts
from noderuntime.images.store import ingest
from noderuntime.images.store.store import open_store
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.layers.pool import Unpackers

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}
_MOST = 500


class Steps:
    """Counts steps, and kills its process at one of them."""

    def __init__(self, root: Path, last: int) -> None:
        self._root = str(root)
        self._left = last
        self._lock = threading.Lock()

    def take(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if event in _CHANGES or writes:
            below_open_directory = event in {"os.remove", "os.rmdir"} and arguments[-1] != -1
            if below_open_directory or str(arguments[0]).startswith(self._root):
                self.take()

    def around(self, call: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any) -> None:
            self.take()
            call(*arguments)
            self.take()

        return counted


async def backend_at(root: Path) -> NativeBackend:
    store = await open_store(root, LinuxHost(), "this boot")
    return NativeBackend(store, Registry(Hosts([])), Unpackers(1))


async def pull(root: Path, reference: str) -> None:
    backend = await backend_at(root)
    await backend.pull(reference)
    await backend.close()


async def check(root: Path, reference: str, image_id: str) -> dict[str, Any]:
    """Pull and return the store's files; then remove the image and return the files that are left."""
    backend = await backend_at(root)
    before = left(root)
    found = {"before": before, "id": await backend.pull(reference)}
    [image] = backend.list_images()
    found |= {"tags": image.repo_tags, "after": left(root), "tree": await tree(backend, root, image_id)}
    await backend.remove(image_id)
    found["removed"] = left(root)
    await backend.close()
    return found


async def tree(backend: NativeBackend, root: Path, image_id: str) -> dict[str, str]:
    target = root.parent / "target"
    target.mkdir()
    await backend.prepare("key", await backend.image(image_id), target, {})
    files = {str(path.relative_to(target)): path for path in sorted(target.rglob("*")) if path.is_file()}
    found = {name: f"{path.stat().st_size} {path.read_bytes()[:8]!r}" for name, path in files.items()}
    await backend.release("key", target)
    target.rmdir()
    return found


def left(root: Path) -> list[str]:
    kinds = ("layers", "snapshots", "partial", "blobs/sha256")
    return [f"{kind}/{name}" for kind in kinds for name in sorted(os.listdir(root / kind))]


def run(work: Callable[[], Any]) -> int:
    """Run work in a child process and return its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(directory: Path, registry: str, name: str, image_id: str) -> None:
    reference = f"{registry}/{name}"
    for step in range(1, _MOST):
        area = Path(tempfile.mkdtemp(dir=directory))
        root = area / "images"

        def killed(root: Path = root, step: int = step) -> None:
            steps = Steps(root, step)
            ingest._write_all = steps.around(ingest._write_all)
            Database._write = steps.around(Database._write)  # type: ignore[method-assign]
            sys.addaudithook(steps.audit)
            asyncio.run(pull(root, reference))

        def good(root: Path = root, step: int = step) -> None:
            found = asyncio.run(check(root, reference, image_id))
            print(json.dumps({"step": step, **found}), flush=True)

        ended = run(killed)
        outcome = run(good)
        shutil.rmtree(area)
        if outcome != 0 or ended not in (0, -signal.SIGKILL):
            sys.exit(f"step {step}: the killed pull ended with {ended}, the good one with {outcome}")
        if ended == 0:
            return
    sys.exit(f"a pull has more than {_MOST} steps")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
