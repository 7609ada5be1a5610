"""Watches of the API that record every state of objects, for checks of what happened in between."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.kubectl import Kubectl
from harness.paths import tool

_SEPARATOR = "|"
"""Not a tab: kubectl aligns columns with spaces."""
_PAUSE = 0.5
"""Seconds before a watch that ended, for example with the API server, is started again."""


@dataclass(frozen=True)
class Seen:
    """An object's fields at a time of time.monotonic()."""

    at: float
    fields: tuple[str, ...]


@contextmanager
def watched(kubectl: Kubectl, kind: str, *paths: str) -> Iterator[list[Seen]]:
    """Watch all objects of a kind; yield the growing list of their states.

    paths are JSONPath expressions such as ``.metadata.name``; a field that does not exist is empty. Only the
    first line of the last field is kept.
    """
    seen: list[Seen] = []
    form = f'{{"{_SEPARATOR}"}}'.join(f"{{{path}}}" for path in paths) + '{"\\n"}'
    argv = [
        tool("kubectl"),
        f"--kubeconfig={kubectl.kubeconfig}",
        "get",
        kind,
        "--watch",
        "-o",
        f"jsonpath={form}",
    ]
    watch = _Watch(argv, len(paths), seen)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield seen
    finally:
        watch.end()
        thread.join()


class _Watch:
    """A kubectl process that is started again whenever it ends."""

    def __init__(self, argv: list[str], width: int, seen: list[Seen]) -> None:
        self._argv, self._width, self._seen = argv, width, seen
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        while not self._ended.is_set():
            with subprocess.Popen(
                self._argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as self._process:
                if self._ended.is_set():
                    self._process.kill()
                assert self._process.stdout is not None
                for line in self._process.stdout:
                    fields = tuple(line.rstrip("\n").split(_SEPARATOR, self._width - 1))
                    if len(fields) == self._width:
                        self._seen.append(Seen(time.monotonic(), fields))
            self._ended.wait(_PAUSE)

    def end(self) -> None:
        self._ended.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
