"""Cgroups, as files in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from noderuntime.node.host.cgroup import Cgroups, path_in_hierarchy


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("memory/pod/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("pod/c/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 9\n"),
    ],
)
def test_oom_kills_are_counted(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    if not file.startswith("memory/"):
        (tmp_path / "cgroup.controllers").write_text("memory")
    assert Cgroups(tmp_path).oom_kills("/pod/c") == 2
    assert Cgroups(tmp_path).oom_kills("/pod/gone") == 0


def test_cgroup_version_is_detected(tmp_path: Path) -> None:
    assert Cgroups(tmp_path).version == 1
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    found = Cgroups(tmp_path)
    assert (found.version, found.hierarchies, found.controllers()) == (2, (tmp_path,), {"cpu", "memory"})


def test_symlinks_to_hierarchies_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "cpu,cpuacct/cgroup.procs").touch()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert [one.name for one in Cgroups(tmp_path).hierarchies] == ["cpu,cpuacct"]


@pytest.mark.parametrize(("beside", "joined"), [("memory", "7"), ("cgroup.controllers", "")])
def test_only_the_v2_hierarchy_beside_v1_is_joined(tmp_path: Path, beside: str, joined: str) -> None:
    (tmp_path / beside).touch()
    for hierarchy in ("unified", "unified/pod"):
        (tmp_path / hierarchy).mkdir()
        (tmp_path / hierarchy / "cgroup.procs").touch()
    Cgroups(tmp_path).join_hybrid("/pod", 7)
    assert (tmp_path / "unified/pod/cgroup.procs").read_text() == joined


def test_path_in_hierarchy_omits_the_mount_point() -> None:
    v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert path_in_hierarchy("/sys/fs/cgroup/a/b" if v2 else "/sys/fs/cgroup/memory/a/b") == "/a/b"


def test_swap_file_requires_memory_swap_max(tmp_path: Path) -> None:
    (tmp_path / "system.slice").mkdir()
    (tmp_path / "cgroup.controllers").touch()
    assert not Cgroups(tmp_path).swap_file()
    (tmp_path / "system.slice/memory.swap.max").touch()
    assert Cgroups(tmp_path).swap_file()
    (tmp_path / "cgroup.controllers").unlink()
    assert not Cgroups(tmp_path).swap_file()
