"""The processes that stand for gVisor's containers, and the PIDs that they leave behind."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from noderuntime.core.ids import new_id
from noderuntime.node.executor.gvisor import GvisorExecutor
from noderuntime.node.host.linux import LinuxHost


@pytest.mark.parametrize("is_stand_in", [True, False])
async def test_delete_kills_the_stand_in_and_no_other_process(tmp_path: Path, is_stand_in: bool) -> None:
    container = new_id()
    bundle = tmp_path / "containers" / container
    bundle.mkdir(parents=True)
    (bundle / "gate").touch()
    executor = GvisorExecutor(
        "gvisor", LinuxHost(), Path("runsc"), tmp_path, Path("busybox"), systemd_cgroup=False
    )
    argv = ["sh", "-c", "read order", container if is_stand_in else new_id()]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        (bundle / "pidfile").write_text(str(process.pid))
        await executor.delete(container, new_id())
        if is_stand_in:
            assert process.wait(timeout=10) == -signal.SIGKILL
        else:
            assert process.poll() is None
            process.kill()
