"""conmon as the monitor: logs, exits, cgroups and records of OOM kills, with the real tools."""

from __future__ import annotations

import asyncio
import re
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from realnode.handlers import Bench, until
from realnode.tools import tool

from noderuntime.core.errors import FailedPrecondition, HostError, NotFound
from noderuntime.core.ids import new_id
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.monitor.base import Exit, MonitorRequest
from noderuntime.node.monitor.conmon import ConmonMonitor

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}[+-]\d\d:\d\d (stdout|stderr) [FP] .*")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Yield a runc sandbox, and check that it leaves nothing when the test ends."""
    made = Bench("runc", Path(tempfile.mkdtemp(prefix="nrb-", dir="/run")))
    await made.open()
    yield made
    assert await made.close() == []


async def test_the_log_has_the_cri_format(bench: Bench) -> None:
    container = await bench.launch("sh", "-c", "echo out; echo err >&2; echo -n unfinished")
    await bench.ended(container)
    lines = bench.log_file(container).read_text().splitlines()
    assert len(lines) == 3
    assert all(LINE.fullmatch(line) for line in lines)


async def test_a_reopened_log_continues_in_a_new_file(bench: Bench) -> None:
    container = await bench.launch(
        "sh", "-c", "echo before; trap 'echo after; exit 0' TERM; while :; do sleep 0.1; done"
    )
    await until(lambda: bench.log(container) == ["before"])
    log = bench.log_file(container)
    old = log.rename(log.with_suffix(".1"))
    await bench.monitor.reopen_log(bench.run / "containers" / container, log)
    assert log.exists()
    await bench.executor.kill(container, bench.sandbox, signal.SIGTERM)
    await bench.ended(container)
    assert bench.log(container) == ["after"]
    assert "before" in old.read_text()


async def test_the_log_of_an_ended_container_cannot_be_reopened(bench: Bench) -> None:
    container = await bench.launch("sh", "-c", "exit 0")
    await bench.ended(container)
    with pytest.raises(FailedPrecondition):
        await bench.monitor.reopen_log(bench.run / "containers" / container, bench.log_file(container))


async def test_monitors_run_in_their_pods_cgroup(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    monitor = bench.made[container].monitor
    lines = Path(f"/proc/{monitor.pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(f"{bench.cgroup}/noderuntime-monitor") for line in lines)


async def test_a_monitor_that_cannot_be_put_into_its_cgroup_is_ended(bench: Bench, tmp_path: Path) -> None:
    class Refusing(LinuxHost):
        async def join_cgroup(self, path: str, pid: int) -> None:
            raise HostError(f"join cgroup {path}", 28, "no room")

    runtime = tmp_path / "runtime"
    runtime.write_text("#!/bin/sh\nexec sleep 1000\n")
    runtime.chmod(0o755)
    monitor = ConmonMonitor(Refusing(), tool("conmon"), bench.exits, tmp_path)
    request = MonitorRequest(new_id(), "c", tmp_path, runtime, (), f"{bench.cgroup}/monitor")
    async with asyncio.timeout(5):  # the error is reported at once, and as it is
        with pytest.raises(HostError, match="no room"):
            await monitor.create(request)
    assert request.container_id not in (await bench.host.run(["ps", "ax"], timeout=10)).stdout.decode()


async def test_no_monitor_is_started_without_a_cgroup(bench: Bench, tmp_path: Path) -> None:
    cgroup = f"{bench.cgroup}/no\nname"  # the kernel takes no newline
    request = MonitorRequest(new_id(), "c", tmp_path, Path("/bin/false"), (), cgroup)
    with pytest.raises(HostError, match="make cgroup"):
        await bench.monitor.create(request)
    await bench.monitor.forget(request.container_id)


async def test_an_oom_kill_is_recorded(bench: Bench) -> None:
    limits = {"resources": {"memory_limit_in_bytes": 16 << 20}}
    container = await bench.launch("sh", "-c", "tail /dev/zero", linux=limits)
    assert (await bench.ended(container)).exit_code == 137
    assert bench.monitor.oom_killed(container)


async def test_an_ordinary_exit_records_no_oom_kill(bench: Bench) -> None:
    container = await bench.launch("sh", "-c", "exit 137")
    await bench.ended(container)
    assert not bench.monitor.oom_killed(container)


async def test_exit_is_on_disk_when_the_monitor_has_ended(bench: Bench) -> None:
    for code in range(10):
        container = await bench.launch("sh", "-c", f"exit {code}")
        assert await LinuxHost().wait(bench.made[container].monitor, timeout=20)
        written = bench.monitor.exit(container)
        assert written is not None
        assert written.exit_code == code


def test_file_without_an_exit_code_is_no_exit(tmp_path: Path) -> None:
    monitor, name = ConmonMonitor(LinuxHost(), Path("conmon"), tmp_path, tmp_path), new_id()
    assert monitor.exit(name) is None
    (tmp_path / name).write_text("garbage")
    assert monitor.exit(name) is None
    (tmp_path / name).write_text("2")
    assert monitor.exit(name) == Exit(name, 2, (tmp_path / name).stat().st_mtime_ns)


async def test_a_missing_monitor_is_named(tmp_path: Path) -> None:
    monitor = ConmonMonitor(LinuxHost(), Path("/no/such/conmon"), tmp_path, tmp_path)
    request = MonitorRequest(new_id(), "c", tmp_path, Path("/bin/false"), (), "/")
    with pytest.raises(NotFound, match="/no/such/conmon"):
        await monitor.create(request)


async def test_a_missing_runtime_is_named(bench: Bench, tmp_path: Path) -> None:
    """conmon can exit before or after it is released."""
    for _ in range(5):
        request = MonitorRequest(new_id(), "c", tmp_path, Path("/no/such/runtime"), (), f"{bench.cgroup}/m")
        with pytest.raises(NotFound, match="the runtime /no/such/runtime is missing"):
            await bench.monitor.create(request)
        await bench.monitor.forget(request.container_id)
