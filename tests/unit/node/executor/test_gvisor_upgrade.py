"""A sandbox is driven by the runsc that made it, also after the node got another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from noderuntime.config import Config
from noderuntime.node.executor.gvisor import GvisorExecutor
from noderuntime.node.executor.handlers import executors
from noderuntime.node.host.linux import LinuxHost

SANDBOX, CONTAINER = "5b" * 32, "6c" * 32


class Unified(LinuxHost):
    """A host with cgroup v2."""

    def cgroup_version(self) -> Literal[1, 2]:
        return 2


class Versions:
    """The executors of two versions of the daemon, whose runscs write down their calls."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.old, self.new = self._executor("one"), self._executor("two")

    def _executor(self, version: str) -> GvisorExecutor:
        program = self._root / version
        program.write_text(f"#!/bin/sh\necho {version} $* >> {self._root}/calls\n")
        program.chmod(0o755)
        run, busybox = self._root / "run", Path("/bin/busybox")
        made = GvisorExecutor("gvisor", Unified(), program, run, busybox, systemd_cgroup=version == "one")
        (run / "runsc").mkdir(parents=True, exist_ok=True)
        return made

    def make_sandbox(self, executor: GvisorExecutor) -> None:
        spec: dict[str, Any] = {
            "process": {},
            "linux": {"cgroupsPath": "kubepods.slice:noderuntime:x", "namespaces": []},
        }
        executor.adapt_spec(spec, SANDBOX, is_root=True)
        bundle = self._root / "run/containers" / SANDBOX
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(spec))
        (self._root / f"run/runsc/{CONTAINER}_sandbox:{SANDBOX}.state").touch()

    def calls(self) -> list[str]:
        """Return version and verb of each call."""
        lines = (self._root / "calls").read_text().splitlines()
        return [" ".join(word for word in line.split() if not word.startswith("--"))[:12] for line in lines]


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path)


async def test_sandbox_is_driven_by_the_runsc_that_made_it(versions: Versions) -> None:
    versions.make_sandbox(versions.old)
    await versions.new.start(SANDBOX, SANDBOX, is_root=True)
    await versions.new.update(CONTAINER, SANDBOX, {})
    await versions.new.kill(CONTAINER, SANDBOX, 9)
    await versions.new.delete(CONTAINER, SANDBOX)
    assert [call.split()[:2] for call in versions.calls()] == [
        ["one", "start"], ["one", "update"], ["one", "kill"], ["one", "delete"],
    ]  # fmt: skip


async def test_container_joins_its_sandbox_with_the_same_runsc(versions: Versions) -> None:
    versions.make_sandbox(versions.old)
    command = versions.new.monitor_runtime(CONTAINER, SANDBOX, is_root=False)
    old = versions.old.monitor_runtime(SANDBOX, SANDBOX, is_root=True)
    assert command.flags[-len(old.flags) - 1 :] == (str(old.path), *old.flags)


async def test_new_sandbox_is_made_by_the_new_runsc(versions: Versions, tmp_path: Path) -> None:
    versions.make_sandbox(versions.new)
    assert versions.new.monitor_runtime(SANDBOX, SANDBOX, is_root=True).path == tmp_path / "two"
    await versions.new.update(CONTAINER, SANDBOX, {})
    assert versions.calls()[0].startswith("two update")


async def test_sandbox_whose_runsc_is_gone_is_driven_by_the_present_one(
    versions: Versions, tmp_path: Path
) -> None:
    versions.make_sandbox(versions.old)
    (tmp_path / "one").unlink()
    await versions.new.delete(CONTAINER, SANDBOX)
    assert versions.calls()[0].startswith("two delete")


def test_chosen_flags_are_runscs_flags(tmp_path: Path) -> None:
    runsc = {"platform": "kvm", "host_uds": "open", "directfs": False, "net_raw": True, "core_tags": True}
    plain, chosen = (
        executors(
            Config.model_validate({"handlers": {"g": {"type": "gvisor", "path": "/runsc", "runsc": table}}}),
            Unified(),
            systemd_cgroup=False,
        )["g"].monitor_runtime("c", "c", is_root=True)
        for table in ({}, runsc)
    )
    assert set(chosen.flags) - set(plain.flags) == {
        "--platform=kvm", "--host-uds=open", "--directfs=false", "--net-raw", "--enable-core-tags",
    }  # fmt: skip
    assert set(plain.flags) - set(chosen.flags) == {"--platform=systrap"}
