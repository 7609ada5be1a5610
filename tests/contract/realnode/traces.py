"""Searches a node for everything that pods can leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_KEPT = {"noderuntime.sock"}


def traces(run: Path, cgroup_parent: str, *, daemon: int) -> list[str]:
    """List all that is left of pods: files, mounts, namespaces, processes and cgroups, one line each.

    ``run`` is the daemon's run directory, ``cgroup_parent`` the absolute path of the cgroup
    in which all pods of the test had theirs, ``daemon`` the one process that may name ``run``.
    """
    return sorted(
        [*_files(run), *_mounts(run), *_processes(run, cgroup_parent, daemon), *_cgroups(cgroup_parent)]
    )


def netns_of(sandbox_id: str) -> Path:
    """Return the path of a sandbox's network namespace pin."""
    return Path("/run/netns") / f"noderuntime-{sandbox_id[:32]}"


def _files(run: Path) -> Iterator[str]:
    for directory, names, files in os.walk(run):
        for name in files:
            if name not in _KEPT:
                yield f"file {directory}/{name}"
        if len(Path(directory).relative_to(run).parts) == 1:
            yield from (f"directory {directory}/{name}" for name in names)


def _mounts(run: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split()[4]
        if target.startswith(f"{run}/"):
            yield f"mount {target}"


def _processes(run: Path, cgroup_parent: str, daemon: int) -> Iterator[str]:
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            inside = f":{cgroup_parent}/" in (directory / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not command:
            continue  # a zombie that init has not reaped yet
        if inside or (f"{run}/" in command and directory.name not in (str(daemon), str(os.getpid()))):
            yield f"process {directory.name} {command[:100]}"


def _cgroups(parent: str) -> Iterator[str]:
    for hierarchy in _hierarchies():
        pods = hierarchy / parent.strip("/")
        if pods.is_dir():
            yield from (f"cgroup {path}" for path in pods.glob("*/*") if path.is_dir())


def remove_cgroups(parent: str) -> None:
    """Remove the pods' cgroups, which the kubelet owns; here the test acts as the kubelet."""
    for hierarchy in _hierarchies():
        for directory, _names, _files in os.walk(hierarchy / parent.strip("/"), topdown=False):
            Path(directory).rmdir()


def _hierarchies() -> list[Path]:
    return [_CGROUPS] if (_CGROUPS / "cgroup.controllers").exists() else list(_CGROUPS.iterdir())


def sweep(run: Path) -> None:
    """Kill processes and unmount filesystems that refer to the run directory, after a failed test."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            named = f"{run}/".encode() in (directory / "cmdline").read_bytes()
            if named and directory.name != str(os.getpid()):
                os.kill(int(directory.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = line.split()[4]
        if target.startswith(f"{run}/"):
            subprocess.run(["umount", "-l", target], check=False)
