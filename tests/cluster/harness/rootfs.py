"""The root filesystem that all nodes share, below their own overlays.

Debian 12 without Python, with stock containerd from Debian sid (Debian 12's is too
old for the kubelet), the kubelet, kube-proxy, runc and the CNI plugins. It is built
once for each set of inputs and cached outside of the checkout.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from harness.paths import CACHE, REPO, tool
from harness.run import run

_SUITE = "bookworm"
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2", "iptables", "conntrack", "ethtool", "kmod", "procps",
    "util-linux", "mount", "ca-certificates", "libseccomp2", "busybox-static",
)  # fmt: skip
_PROGRAMS = {
    "kubelet": "usr/bin/kubelet",
    "kube-proxy": "usr/bin/kube-proxy",
    "containerd": "usr/bin/containerd",
    "containerd-shim-runc-v2": "usr/bin/containerd-shim-runc-v2",
    "ctr": "usr/bin/ctr",
    "runc": "usr/sbin/runc",
    "bridge": "opt/cni/bin/bridge",
    "host-local": "opt/cni/bin/host-local",
    "loopback": "opt/cni/bin/loopback",
    "portmap": "opt/cni/bin/portmap",
}
_MASKED = (
    "systemd-sysctl.service", "systemd-udevd.service", "systemd-logind.service", "console-getty.service",
    "getty@tty1.service", "systemd-timesyncd.service", "apt-daily.timer", "apt-daily-upgrade.timer",
    "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "dev-hugepages.mount",
)  # fmt: skip


@functools.cache
def base() -> Path:
    """Return the shared root filesystem, built on the first call (about a minute)."""
    path = CACHE / "rootfs" / f"node-{_key()}"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        root = Path(scratch) / "root"
        sources = run(sys.executable, str(REPO / "scripts/aptsources.py"), _SUITE).splitlines()
        run("mmdebstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root),
            *sources, timeout=600)  # fmt: skip
        _install_programs(root)
        _prepare_systemd(root)
        root.rename(path)
    return path


def _key() -> str:
    """Return a digest of the inputs: this module and the programs."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in _PROGRAMS:
        with Path(tool(name)).open("rb") as program:
            digest.update(hashlib.file_digest(program, "sha256").digest())
    return digest.hexdigest()[:16]


def _install_programs(root: Path) -> None:
    for name, target in _PROGRAMS.items():
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(tool(name)).resolve(), root / target)
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)


def _prepare_systemd(root: Path) -> None:
    """Keep only the units that a node needs, and none that affects the machine."""
    units = root / "etc/systemd/system"
    for unit in _MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    (root / "var/log/journal").mkdir(parents=True, exist_ok=True)
    (root / "etc/machine-id").write_text("")
    for python in (root / "usr/bin").glob("python3*"):
        raise RuntimeError(f"the node's root filesystem holds {python.name}: a node must not have Python")
