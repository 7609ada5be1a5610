"""The kernel: system calls, overlayfs, seccomp, forwarding."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from noderuntime.core.errors import HostError
from noderuntime.doctor.finding import Finding, bad, good, poor
from noderuntime.node.host.syscalls import open_in_root

_PROC = Path("/proc")
_MODULES = Path("/lib/modules")


def user() -> Finding:
    """Look at who asks: sockets, cgroups and tools are root's."""
    if os.geteuid() == 0:
        return good("user", "root")
    return poor("user", "not root, so what is only root's looks broken", "run noderuntime doctor as root")


def system_calls() -> Finding:
    """Try the newest calls that every pod needs: pidfd_open (Linux 5.3), openat2 (5.6)."""
    release = platform.release()
    try:
        os.close(os.pidfd_open(os.getpid()))
        root = os.open("/", os.O_PATH)
        try:
            os.close(open_in_root(root, "."))
        finally:
            os.close(root)
    except (OSError, HostError) as error:
        return bad("kernel", f"Linux {release} lacks system calls: {error}", "boot Linux 5.6 or newer")
    return good("kernel", f"Linux {release}")


def overlayfs(proc: Path = _PROC, modules: Path = _MODULES) -> Finding:
    """Look for the filesystem that root filesystems are made of."""
    known = (line.split()[-1] for line in (proc / "filesystems").read_text(encoding="ascii").splitlines())
    if "overlay" in known:
        return good("overlayfs", "in the kernel")
    if any((modules / platform.release() / "kernel/fs/overlayfs").glob("overlay.ko*")):
        return poor(
            "overlayfs",
            "the module is not loaded",
            "modprobe overlay, and name it in /etc/modules-load.d for the next boot",
        )
    return bad("overlayfs", "the kernel has none", "boot a kernel with CONFIG_OVERLAY_FS")


def seccomp(profile: Path | None, proc: Path = _PROC) -> Iterator[Finding]:
    """Look whether system calls can be filtered, and by which profile RuntimeDefault does."""
    if not (proc / "sys/kernel/seccomp/actions_avail").exists():
        yield bad("seccomp", "the kernel has none", "boot a kernel with CONFIG_SECCOMP_FILTER")
    if profile is None:
        yield poor(
            "seccomp profile",
            "none: RuntimeDefault filters nothing",
            "set tools.seccomp_profile to a profile in the OCI format",
        )
        return
    try:
        json.loads(profile.read_bytes())
    except (OSError, ValueError) as error:
        yield bad("seccomp profile", f"{profile}: {error}", "correct tools.seccomp_profile")
    else:
        yield good("seccomp profile", str(profile))


def forwarding(proc: Path = _PROC) -> Finding:
    """Look whether the node hands on what its pods send."""
    if (proc / "sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip() == "1":
        return good("forwarding", "net.ipv4.ip_forward is 1")
    return poor(
        "forwarding",
        "net.ipv4.ip_forward is 0: pods reach nobody beyond this node by IPv4",
        "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d",
    )
