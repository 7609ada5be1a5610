"""Out-of-memory kills that conmon may miss.

Told of a change, conmon reads the kernel's count in the container's cgroup. With cgroup v2 and systemd
that cgroup goes with its last process, and may do so before conmon has looked. The count of the pod's
cgroup takes in all that are below, and stays: it is noted before the container starts.
"""

from __future__ import annotations

import json
from pathlib import Path

from noderuntime.host.cgroup import ROOT

_NOTE = "oom-kills-before"


def note(directory: Path, pod: str, root: Path = ROOT) -> None:
    """Keep, in the directory, how many the kernel has killed in a pod's cgroup; nothing in cgroup v1."""
    kills = _kills(root / pod.lstrip("/"))
    if kills is not None:
        (directory / _NOTE).write_text(json.dumps([pod, kills]), encoding="utf-8")


def happened_since(directory: Path, root: Path = ROOT) -> bool:
    """Tell whether the kernel has killed in the pod's cgroup since the note; no without one."""
    try:
        pod, before = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    kills = _kills(root / str(pod).lstrip("/"))
    return kills is not None and kills > before


def _kills(group: Path) -> int | None:
    """Read ``oom_kill`` of ``memory.events``; None where there is none."""
    try:
        lines = (group / "memory.events").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
