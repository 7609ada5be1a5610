"""A machine: QEMU in software emulation with two processors, no network, and disks that are not changed."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.paths import tool
from vm.system import System

_KERNEL = (
    "root=/dev/vda rw console=ttyS0 panic=1 psi=1 systemd.unified_cgroup_hierarchy=1 systemd.show_status=0"
)


@contextmanager
def booted(system: System, payload: Path, console: Path, *, timeout: float) -> Iterator[Iterator[str]]:
    """Boot the machine and yield the lines of its second serial port until it is off.

    After ``timeout`` seconds, or at the end of the block, it is switched off. It ends with this process.
    """
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "nice", "-n", "15", *_qemu(system, payload, console)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    clock = threading.Timer(timeout, process.kill)
    clock.start()
    try:
        assert process.stdout is not None
        yield (line.rstrip() for line in process.stdout)
    finally:
        clock.cancel()
        process.kill()
        process.wait()


def _qemu(system: System, payload: Path, console: Path) -> list[str]:
    return [
        tool("qemu-system-x86_64"),
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"),
        *("-display", "none", "-nic", "none", "-no-reboot"),
        *("-kernel", str(system.kernel), "-initrd", str(system.initrd), "-append", _KERNEL),
        *("-drive", f"file={system.disk},if=virtio,format=raw,snapshot=on"),
        *("-drive", f"file={payload},if=virtio,format=raw,snapshot=on"),
        *("-serial", f"file:{console}", "-serial", "stdio"),
    ]
