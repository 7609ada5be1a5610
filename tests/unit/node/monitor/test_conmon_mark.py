"""conmon's marker file for an OOM kill."""

from __future__ import annotations

from pathlib import Path

from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.monitor.conmon import ConmonMonitor


def test_monitor_reads_conmons_oom_marker(tmp_path: Path) -> None:
    monitor = ConmonMonitor(LinuxHost(), Path("conmon"), tmp_path, tmp_path / "persist")
    (tmp_path / "c").write_text("137")
    (tmp_path / "persist/c").mkdir(parents=True)
    assert not monitor.oom_killed("c")
    (tmp_path / "persist/c/oom").touch()
    assert monitor.oom_killed("c")
