"""Host processes that outlive the harness's own process.

A process is recorded with its PID and start time, so that another process with
the same PID is never mistaken for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.run import wait_for

_children: dict[int, subprocess.Popen[bytes]] = {}


def start(directory: Path, name: str, argv: Sequence[str]) -> None:
    """Start the program in its own session, with its log beside its PID file.

    It does nothing if the process started before is still running.
    """
    if is_running(directory, name):
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    _children[process.pid] = process
    record = {"pid": process.pid, "started": start_time(process.pid)}
    (directory / f"{name}.json").write_text(json.dumps(record))


def is_running(directory: Path, name: str) -> bool:
    """Return whether the process started under that name is still running."""
    record = _record(directory, name)
    return record is not None and _is_alive(*record)


def stop(directory: Path, name: str, timeout: float = 15) -> None:
    """Stop the process with SIGTERM, and with SIGKILL after timeout seconds."""
    record = _record(directory, name)
    if record is None:
        return
    pid, started = record
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _is_alive(pid, started):
            break
        os.kill(pid, number)
        try:
            wait_for(f"end of {name}", lambda: not _is_alive(pid, started), timeout, every=0.05)
        except TimeoutError:
            continue
    _reap(pid)
    (directory / f"{name}.json").unlink(missing_ok=True)


def start_time(pid: int) -> str | None:
    """Return the start time of a process in clock ticks, or None if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _reap(pid: int) -> None:
    """Reap a child of this process, if it has ended."""
    child = _children.pop(pid, None)
    if child is not None:
        child.wait(timeout=10)


def _record(directory: Path, name: str) -> tuple[int, str] | None:
    file = directory / f"{name}.json"
    if not file.exists():
        return None
    record = json.loads(file.read_text())
    return record["pid"], record["started"]


def _is_alive(pid: int, started: str) -> bool:
    child = _children.get(pid)
    if child is not None:
        child.poll()
    return start_time(pid) == started
