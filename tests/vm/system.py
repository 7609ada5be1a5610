"""The machine's operating system: Debian 12 with its cloud kernel and systemd, without Python and runtime.

It runs a script of its second disk (``vm.payload``). It is built once per recipe, outside of the checkout.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.paths import CACHE, REPO
from harness.run import run

_SUITES = ("bookworm", "bookworm-security")
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "linux-image-cloud-amd64", "initramfs-tools", "iproute2",
    "iptables", "apparmor", "crun", "kmod", "procps", "util-linux", "mount",
)  # fmt: skip
_MASKED = (
    "apparmor.service", "serial-getty@ttyS0.service", "getty@tty1.service", "systemd-timesyncd.service",
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer",
)  # fmt: skip
_FILES = {
    "etc/hostname": "emulated\n",
    "etc/machine-id": "",
    "etc/fstab": "/dev/vda / ext4 rw 0 1\n/dev/vdb /opt/noderuntime ext4 ro 0 0\n",
    "etc/systemd/system/smoke.service": """\
[Unit]
Description=Run the script of the second disk
RequiresMountsFor=/opt/noderuntime
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/bin/sh /opt/noderuntime/smoke/run.sh
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS1
""",
}
_SIZE = "4G"  # sparse, because the pods write there too


@dataclass(frozen=True)
class System:
    """The kernel, initrd and disk that a machine boots."""

    kernel: Path
    initrd: Path
    disk: Path


def system() -> System:
    """Return the operating system, built on the first call (about two minutes)."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    home = CACHE / "vm" / f"system-{key}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            _build(Path(scratch, "tree"), Path(scratch, "made"))
            Path(scratch, "made").rename(home)
    return System(home / "vmlinuz", home / "initrd.img", home / "root.ext4")


def _build(tree: Path, made: Path) -> None:
    made.mkdir()
    sources = run(sys.executable, str(REPO / "scripts/aptsources.py"), *_SUITES).splitlines()
    run("mmdebstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", "bookworm", str(tree),
        *sources, timeout=900)  # fmt: skip
    for name, content in _FILES.items():
        (tree / name).write_text(content)
    units = tree / "etc/systemd/system"
    for unit in _MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "default.target.wants").mkdir(exist_ok=True)
    (units / "default.target.wants/smoke.service").symlink_to("../smoke.service")
    (tree / "opt/noderuntime").mkdir(parents=True)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(tree / name, made / name)
    ext4(tree, made / "root.ext4", _SIZE)


def ext4(tree: Path, image: Path, size: str) -> None:
    """Create an ext4 image of the tree, without mounting it."""
    run("mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(image), size, timeout=300)
