"""An out-of-memory kill that conmon missed is known from the pod's cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from noderuntime.host.linux import LinuxHost
from noderuntime.monitor import oom
from noderuntime.monitor.conmon import ConmonMonitor

POD = "/kubepods.slice/kubepods-pod1.slice"


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """The pod's cgroup, in a hierarchy below ``tmp_path``."""
    group = tmp_path / POD[1:]
    group.mkdir(parents=True)
    return group


def killed(group: Path, times: int) -> None:
    """Have the kernel count."""
    (group / "memory.events").write_text(f"low 0\nmax 7\noom 3\noom_kill {times}\noom_group_kill 9\n")


def test_only_what_came_after_the_note_counts(group: Path, tmp_path: Path) -> None:
    killed(group, 2)
    oom.note(tmp_path, POD, tmp_path)
    assert not oom.happened_since(tmp_path, tmp_path)
    killed(group, 3)
    assert oom.happened_since(tmp_path, tmp_path)


def test_what_is_not_known_did_not_happen(group: Path, tmp_path: Path) -> None:
    oom.note(tmp_path, POD, tmp_path)
    killed(group, 1)
    assert not oom.happened_since(tmp_path, tmp_path), "there was no count to note"
    oom.note(tmp_path, POD, tmp_path)
    (group / "memory.events").unlink()
    assert not oom.happened_since(tmp_path, tmp_path)


def test_conmons_mark_is_believed(tmp_path: Path) -> None:
    monitor = ConmonMonitor(LinuxHost(), Path("conmon"), tmp_path, tmp_path / "persist")
    (tmp_path / "c").write_text("137")
    (tmp_path / "persist/c").mkdir(parents=True)
    assert not monitor.oom_killed("c", asked=False)
    (tmp_path / "persist/c/oom").touch()
    assert monitor.oom_killed("c", asked=True)
