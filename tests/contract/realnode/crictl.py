"""crictl as a user runs it: commands, terminals, forwarded ports."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from realnode.tools import tool

_SECONDS = 30.0


class Crictl:
    """Runs crictl against a socket; ``transport`` is spdy or websocket."""

    def __init__(self, socket: Path, transport: str = "spdy") -> None:
        self._base = [
            str(tool("crictl")),
            f"--config={os.devnull}",
            f"--runtime-endpoint=unix://{socket}",
            f"--image-endpoint=unix://{socket}",
        ]
        self._transport = transport

    def argv(self, verb: str, *arguments: str) -> list[str]:
        """Return the command line of a verb that streams."""
        return [*self._base, verb, f"--transport={self._transport}", *arguments]

    def run(self, verb: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a verb that streams to its end."""
        argv = self.argv(verb, *arguments)
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=_SECONDS, check=False)

    @contextlib.contextmanager
    def forwarded(self, pod: str, port: int) -> Iterator[int]:
        """Forward a port of a pod and yield the local port."""
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(
                self.argv("port-forward", pod, f":{port}"), stdout=subprocess.PIPE, stderr=complaints
            ) as running,
        ):
            try:
                assert running.stdout is not None
                line = running.stdout.readline().decode()
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                complaints.seek(0)
                assert found, f"{line}{complaints.read().decode()}"
                yield int(found[1])
            finally:
                running.kill()


class Terminal:
    """A program on its own terminal, with its user."""

    def __init__(self, argv: list[str], rows: int = 24, columns: int = 80) -> None:
        self._master, slave = os.openpty()
        self.resize(rows, columns)
        self._process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self._unread = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the window size, of which the program is notified."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "_process"):
            self._process.send_signal(signal.SIGWINCH)

    def shows(self, words: str) -> str:
        """Wait for a text and return the output up to it."""
        deadline = time.monotonic() + _SECONDS
        while words.encode() not in self._unread:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(left, 0))
            assert ready, f"{words!r} is not in {self._unread!r}"
            try:
                self._unread += os.read(self._master, 1 << 16)
            except OSError:
                raise AssertionError(f"{words!r} is not in {self._unread!r}, and nothing will come") from None
        shown, _, self._unread = self._unread.partition(words.encode())
        return (shown + words.encode()).decode(errors="replace")

    def ends(self) -> int:
        """Wait for the program to exit."""
        return self._process.wait(timeout=_SECONDS)

    def kill(self) -> None:
        """Kill the program."""
        self._process.kill()
        self._process.wait()
