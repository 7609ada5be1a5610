"""The contract of a handler with the real tools: the same suite for runc, crun and gVisor."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import stat
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from realnode.handlers import Bench, make_executor, until
from realnode.tools import tool

from noderuntime.core.errors import DeadlineExceeded, FailedPrecondition, NotFound, ToolError
from noderuntime.node.host.linux import LinuxHost

HANDLERS = ["runc", "crun", "gvisor"]


@pytest.fixture(params=HANDLERS)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Yield a sandbox, and check that it leaves nothing when the test ends."""
    made = Bench(request.param, Path(tempfile.mkdtemp(prefix="nrb-", dir="/run")))
    await made.open()
    yield made
    assert await made.close() == []


@pytest.mark.parametrize("code", [0, 3, 137])
async def test_log_and_exit_code_of_a_container(bench: Bench, code: int) -> None:
    container = await bench.launch("sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (await bench.ended(container)).exit_code == code
    assert sorted(bench.log(container)) == ["err", "out"]


async def test_containers_of_a_sandbox_have_separate_logs_and_exits(bench: Bench) -> None:
    first = await bench.launch("sh", "-c", "echo one; exec sleep 1000")
    second = await bench.launch("sh", "-c", "echo two; exit 4")
    assert (await bench.ended(second)).exit_code == 4
    assert bench.monitor.exit(first) is None
    assert (bench.log(first), bench.log(second)) == (["one"], ["two"])


async def test_nothing_runs_before_start(bench: Bench) -> None:
    container = await bench.create("echo", "started")
    assert bench.log_file(container).read_text() == ""
    await bench.start(container)
    assert (await bench.ended(container)).exit_code == 0


async def test_start_fails_for_a_running_or_ended_container(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    with pytest.raises((ToolError, FailedPrecondition)):
        await bench.start(container)
    await bench.executor.kill(container, bench.sandbox, signal.SIGKILL)
    assert (await bench.ended(container)).exit_code == 137
    with pytest.raises((ToolError, FailedPrecondition)):
        await bench.start(container)


@pytest.mark.parametrize("bench", ["runc", "crun"], indirect=True)
async def test_start_fails_after_the_container_has_ended(bench: Bench) -> None:
    container = await bench.create("sleep", "1000")
    await bench.host.signal(bench.made[container].process, signal.SIGKILL)
    with pytest.raises(ToolError, match=r"stopped|not running|already dead"):
        await bench.start(container)


async def test_a_container_that_was_never_started_can_be_killed_and_deleted(bench: Bench) -> None:
    container = await bench.create("sleep", "1000")
    await bench.executor.kill(container, bench.sandbox, signal.SIGKILL)
    assert (await bench.ended(container)).exit_code == 137
    await bench.executor.delete(container, bench.sandbox)


async def test_the_stop_signal_reaches_the_first_process(bench: Bench) -> None:
    container = await bench.launch(
        "sh", "-c", "trap 'echo stopping; exit 9' TERM; echo up; while :; do sleep 0.1; done"
    )
    await until(lambda: bench.log(container) == ["up"])
    await bench.executor.kill(container, bench.sandbox, signal.SIGTERM)
    assert (await bench.ended(container)).exit_code == 9
    assert bench.log(container) == ["up", "stopping"]


async def test_kill_and_delete_of_a_missing_container_succeed(bench: Bench) -> None:
    container = await bench.launch("sh", "-c", "exit 0")
    await bench.ended(container)
    await bench.executor.kill(container, bench.sandbox, signal.SIGKILL)
    await bench.executor.delete(container, bench.sandbox)
    await bench.executor.kill(container, bench.sandbox, signal.SIGKILL)
    await bench.executor.delete(container, bench.sandbox)


async def test_delete_kills_a_running_container(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    await bench.executor.delete(container, bench.sandbox)
    assert (await bench.ended(container)).exit_code == 137


async def test_exec_gives_streams_and_status(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    assert await bench.exec(container, "sh", "-c", "cat; echo o; echo e >&2; exit 7") == (7, b"o\n", b"e\n")


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGKILL])
async def test_exec_code_of_a_signal_is_128_and_its_number(bench: Bench, signo: int) -> None:
    container = await bench.launch("sleep", "1000")
    assert await bench.exec(container, "sh", "-c", f"kill -{signo} $$") == (128 + signo, b"", b"")


async def test_processes_have_the_limits_on_open_files_of_the_spec(bench: Bench) -> None:
    bench.facts = dataclasses.replace(bench.facts, open_files=(1024, 16384))
    script = "ulimit -Sn; ulimit -Hn; exec sleep 1000"
    container = await bench.launch("sh", "-c", script)
    await until(lambda: bench.log(container) == ["1024", "16384"])
    if bench.handler != "gvisor":  # runsc gives an exec the sandbox's own limits
        assert await bench.exec(container, "sh", "-c", "ulimit -Sn; ulimit -Hn") == (0, b"1024\n16384\n", b"")


async def test_exec_cuts_streams_at_16_mib(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    code, out, _ = await bench.exec(container, "sh", "-c", "head -c 20000000 /dev/zero")
    assert (code, len(out)) == (0, 16 << 20)


async def test_exec_at_its_deadline_ends_what_it_started(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    before = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"0\.5 s"):
        await bench.exec(container, "sh", "-c", "echo $$ >/tmp/pid; exec sleep 999", timeout=0.5)
    assert time.monotonic() - before < 5
    code, _, _ = await bench.exec(container, "sh", "-c", "kill -0 $(cat /tmp/pid) 2>/dev/null")
    assert code == 1


async def test_exec_returns_though_a_child_holds_its_output(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    before = time.monotonic()
    script = "sleep 999 & echo $! >/tmp/pid; echo out; echo err >&2; exit 7"
    assert await bench.exec(container, "sh", "-c", script) == (7, b"out\n", b"err\n")
    assert time.monotonic() - before < 5
    assert await bench.exec(container, "sh", "-c", "kill -0 $(cat /tmp/pid)") == (0, b"", b"")


async def test_exec_of_a_missing_command_is_an_error_in_one_line(bench: Bench) -> None:
    container = await bench.launch("sleep", "1000")
    with pytest.raises(ToolError) as failure:
        await bench.exec(container, "/nonexistent")
    assert "nonexistent" in str(failure.value)
    assert "\n" not in str(failure.value)


async def test_a_missing_command_is_an_error_in_one_line(bench: Bench) -> None:
    with pytest.raises(ToolError) as failure:
        await bench.launch("/nonexistent")
    assert "nonexistent" in str(failure.value)
    assert "\n" not in str(failure.value)


async def test_a_terminal(bench: Bench) -> None:
    container = await bench.launch("sh", "-c", "[ -t 0 ] && [ -t 1 ] && exit 5; exit 6", tty=True)
    assert (await bench.ended(container)).exit_code == 5


async def test_ten_starts_at_once(bench: Bench) -> None:
    containers = await asyncio.gather(*(bench.launch("sh", "-c", f"exit {n}") for n in range(10)))
    ends = await asyncio.gather(*(bench.ended(container) for container in containers))
    assert [end.exit_code for end in ends] == list(range(10))


@pytest.mark.parametrize("bench", ["gvisor"], indirect=True)
async def test_kill_during_a_start_ends_the_container(bench: Bench, tmp_path: Path) -> None:
    runsc = tmp_path / "runsc"
    runsc.write_text(
        f'#!/bin/sh\ncase " $* " in *" start "*) touch {tmp_path}/begun; sleep 60;; esac\n'
        f'exec {tool("runsc")} "$@"\n'
    )
    runsc.chmod(0o755)
    spec = bench.run / "containers" / bench.sandbox / "config.json"  # records the runsc of the sandbox
    spec.write_text(spec.read_text().replace(f'\\"{tool("runsc")}\\"', f'\\"{runsc}\\"'))
    container = await bench.create("sleep", "1000")
    starting = asyncio.create_task(bench.start(container))
    await until((tmp_path / "begun").exists)
    assert await bench.executor.kill(
        container, bench.sandbox, signal.SIGKILL, process=bench.made[container].process
    )
    assert (await bench.ended(container)).exit_code == 137
    async with asyncio.timeout(5):
        with pytest.raises(FailedPrecondition, match="was killed while it was being started"):
            await starting
    await bench.executor.delete(container, bench.sandbox)


@pytest.mark.parametrize("bench", ["gvisor"], indirect=True)
async def test_sandbox_is_killed_without_its_runtime(bench: Bench, tmp_path: Path) -> None:
    container = await bench.launch("sleep", "1000")
    process = bench.made[bench.sandbox].process
    without = make_executor("gvisor", bench.host, bench.run, tmp_path / "missing")
    assert await without.kill(bench.sandbox, bench.sandbox, signal.SIGKILL, process=process)
    assert await bench.host.wait(process, timeout=10)
    assert (await bench.ended(container)).exit_code == 137


@pytest.mark.parametrize("bench", ["gvisor"], indirect=True)
async def test_a_recreated_lock_is_removed_with_the_sandbox(bench: Bench) -> None:
    container = await bench.launch("sh", "-c", "exit 0")
    await bench.ended(container)
    await bench.executor.delete(container, bench.sandbox)
    (bench.run / "runsc" / f"{container}_sandbox:{bench.sandbox}.lock").touch()


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_probe_tells_the_version(handler: str, tmp_path: Path) -> None:
    features = await make_executor(handler, LinuxHost(), tmp_path).probe()
    assert features.version[0].isdigit() or features.version.startswith("release")


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_missing_binary_is_named(handler: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="/no/such/runtime"):
        await make_executor(handler, LinuxHost(), tmp_path, Path("/no/such/runtime")).probe()


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_broken_binary_is_quoted(handler: str, tmp_path: Path) -> None:
    broken = tmp_path / "runtime"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 2\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ToolError, match="exit status 2: it is broken"):
        await make_executor(handler, LinuxHost(), tmp_path, broken).probe()
