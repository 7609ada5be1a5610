"""What runc's own record of a container may make us do to others: nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from noderuntime.core.errors import Internal
from noderuntime.core.ids import new_id
from noderuntime.node.executor.runc import RuncExecutor
from noderuntime.node.host.linux import LinuxHost


class Watched(LinuxHost):
    """A host whose cgroups nobody may ask for."""

    async def cgroup_pids(self, path: str) -> list[int]:
        raise AssertionError(path)


@pytest.mark.parametrize("paths", [{}, {"memory": ""}])
async def test_a_container_without_a_cgroup_of_its_own(tmp_path: Path, paths: dict[str, str]) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    container = new_id()
    state = {"id": container, "init_process_pid": ended.pid, "init_process_start": 1, "cgroup_paths": paths}
    (tmp_path / "runc" / container).mkdir(parents=True)
    (tmp_path / "runc" / container / "state.json").write_text(json.dumps(state))
    executor = RuncExecutor("runc", Watched(), Path("runc"), tmp_path, systemd_cgroup=False)
    with pytest.raises(Internal, match="no cgroup of its own"):
        await executor.kill(container, container, signal.SIGKILL, everything=True)
