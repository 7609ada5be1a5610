"""The OCI runtime spec of a node, and the cgroups that runc leaves."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from harness.run import CommandError

_CGROUP_ROOT = Path("/sys/fs/cgroup")
# In the order of their bits.
_CAPABILITY_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""


@dataclass(frozen=True)
class Bind:
    """A directory of the machine that is mounted into a node."""

    source: Path
    destination: str
    access: Literal["rw", "ro"] = "rw"


def node_spec(name: str, root: Path, binds: Sequence[Bind], netns: str, cgroup: str) -> dict[str, Any]:
    """Return the config.json of a node that boots systemd."""
    capabilities = _own_capabilities()
    sets = ("bounding", "effective", "permitted")
    return {
        "ociVersion": "1.2.0",
        "hostname": name,
        "root": {"path": str(root)},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/lib/systemd/systemd"],
            "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=runc"],
            "capabilities": dict.fromkeys(sets, capabilities),
        },
        "mounts": _mounts(binds),
        "linux": {
            "namespaces": [
                {"type": "network", "path": f"/run/netns/{netns}"},
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")),
            ],
            "cgroupsPath": cgroup,
            "devices": [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o600}],
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
        },
    }


def run_detached(argv: Sequence[str], console: IO[bytes]) -> None:
    """Run runc with the console file as the container's output."""
    status = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console, check=False
    ).returncode
    if status != 0:
        log = Path(console.name).read_text(errors="replace")
        raise CommandError(tuple(argv), status, log)


def cgroup_directories(cgroup: str) -> list[Path]:
    """Return all cgroups of that path and below, children first, in all hierarchies."""
    hierarchies = [_CGROUP_ROOT, *(path for path in _CGROUP_ROOT.iterdir() if path.is_dir())]
    found = []
    for hierarchy in hierarchies:
        for directory, _, _ in os.walk(hierarchy / cgroup.lstrip("/"), topdown=False):
            found.append(Path(directory))
    return found


def remove_cgroups(cgroup: str) -> None:
    """Remove the empty cgroups of that path and below, and parents that become empty."""
    for directory in cgroup_directories(cgroup):
        with contextlib.suppress(OSError):
            directory.rmdir()
            directory.parent.rmdir()


def _own_capabilities() -> list[str]:
    """Return the capabilities of this process's bounding set, the most that a node can have."""
    status = Path("/proc/self/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd")), 16)
    return [f"CAP_{name}" for bit, name in enumerate(_CAPABILITY_NAMES.split()) if mask & (1 << bit)]


def _mounts(binds: Sequence[Bind]) -> list[dict[str, Any]]:
    tmpfs = {
        "/dev": "mode=755", "/run": "mode=755", "/run/lock": "mode=1777", "/tmp": "mode=1777",
        "/dev/shm": "mode=1777",
    }  # fmt: skip
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        *(
            {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", mode]}
            for path, mode in tmpfs.items()
        ),
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "rw"]},
        *(
            {"destination": bind.destination, "type": "bind", "source": str(bind.source),
             "options": ["rbind", bind.access]}
            for bind in binds
        ),
    ]  # fmt: skip
