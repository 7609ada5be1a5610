"""Checks of the user and the kernel: system calls, overlayfs, seccomp, IP forwarding."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from noderuntime.core.errors import HostError
from noderuntime.doctor.finding import Finding, fail, ok, warn
from noderuntime.node.host.syscalls import open_in_root

_PROC = Path("/proc")
_MODULES = Path("/lib/modules")


def user() -> Finding:
    """Check that the user is root, who alone can access the sockets, cgroups and tools."""
    if os.geteuid() == 0:
        return ok("user", "root")
    return warn("user", "not root: checks that need root report failures", "run noderuntime doctor as root")


def system_calls() -> Finding:
    """Check the newest system calls that every pod needs: pidfd_open (Linux 5.3) and openat2 (5.6)."""
    release = platform.release()
    try:
        os.close(os.pidfd_open(os.getpid()))
        root = os.open("/", os.O_PATH)
        try:
            os.close(open_in_root(root, "."))
        finally:
            os.close(root)
    except (OSError, HostError) as error:
        return fail("kernel", f"Linux {release} lacks system calls: {error}", "boot Linux 5.6 or newer")
    return ok("kernel", f"Linux {release}")


def overlayfs(proc: Path = _PROC, modules: Path = _MODULES) -> Finding:
    """Check for overlayfs, which root filesystems are built with."""
    known = (line.split()[-1] for line in (proc / "filesystems").read_text(encoding="ascii").splitlines())
    if "overlay" in known:
        return ok("overlayfs", "in the kernel")
    if any((modules / platform.release() / "kernel/fs/overlayfs").glob("overlay.ko*")):
        return warn(
            "overlayfs",
            "the module is not loaded",
            "run modprobe overlay, and add it to /etc/modules-load.d for the next boot",
        )
    return fail("overlayfs", "the kernel does not support it", "boot a kernel with CONFIG_OVERLAY_FS")


def seccomp(profile: Path | None, proc: Path = _PROC) -> Iterator[Finding]:
    """Check that the kernel supports seccomp and that the profile of RuntimeDefault can be read."""
    if not (proc / "sys/kernel/seccomp/actions_avail").exists():
        yield fail("seccomp", "the kernel does not support it", "boot a kernel with CONFIG_SECCOMP_FILTER")
    if profile is None:
        yield ok("seccomp profile", "built-in")
        return
    try:
        json.loads(profile.read_bytes())
    except (OSError, ValueError) as error:
        yield fail("seccomp profile", f"{profile}: {error}", "correct tools.seccomp_profile, or remove it")
    else:
        yield ok("seccomp profile", str(profile))


def forwarding(proc: Path = _PROC) -> Finding:
    """Check that the node forwards its pods' IPv4 packets."""
    if (proc / "sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip() == "1":
        return ok("forwarding", "net.ipv4.ip_forward is 1")
    return warn(
        "forwarding",
        "net.ipv4.ip_forward is 0: pods cannot reach anything outside this node by IPv4",
        "run sysctl -w net.ipv4.ip_forward=1, and persist it in /etc/sysctl.d",
    )
