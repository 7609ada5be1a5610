"""Real programs whose stdio the host holds."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError
from noderuntime.node.host.base import STDERR, STDOUT, Program
from noderuntime.node.host.linux import LinuxHost


@pytest.fixture
def host() -> LinuxHost:
    return LinuxHost()


async def everything(program: Program) -> dict[int, bytes]:
    """Return all output of the program, by stream."""
    output = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(20):
        while True:
            stream, data = await program.read()
            if not data:
                return output
            output[stream] += data


async def until(program: Program, text: bytes) -> bytes:
    """Read until the output contains a text, and return the output."""
    output = b""
    async with asyncio.timeout(20):
        while text not in output:
            _, data = await program.read()
            assert data, output
            output += data
    return output


async def test_program_returns_its_streams_and_status(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=True, terminal=False)
    await program.write(b"in")
    program.end_input()
    assert await everything(program) == {STDOUT: b"in", STDERR: b"err\n"}
    assert (await program.wait(), await program.wait()) == (3, 3)
    await program.close()


async def test_program_without_stdin_reads_end_of_file(host: LinuxHost) -> None:
    program = await host.converse(["cat"], stdin=False, terminal=False)
    assert await everything(program) == {STDOUT: b"", STDERR: b""}
    with pytest.raises(BrokenPipeError):
        await program.write(b"x")
    assert await program.wait() == 0


async def test_output_can_be_read_after_the_programs_end(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "echo out; echo err >&2"], stdin=False, terminal=False)
    assert await program.wait() == 0
    assert await everything(program) == {STDOUT: b"out\n", STDERR: b"err\n"}
    await program.close()


async def test_output_ends_while_a_descendant_keeps_the_pipes(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "sleep 30 & echo $!"], stdin=False, terminal=False)
    output = await everything(program)
    assert await program.wait() == 0
    await program.close()
    left = await host.process(int(output[STDOUT]))
    assert left is not None
    assert await host.signal(left, signal.SIGKILL)


async def test_output_ends_if_the_program_closes_its_streams(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "exec >&- 2>&-; exec sleep 30"], stdin=False, terminal=False)
    assert await everything(program) == {STDOUT: b"", STDERR: b""}
    await program.close()


async def test_program_waits_while_its_output_is_not_read(host: LinuxHost, tmp_path: Path) -> None:
    script = f"head -c 10000000 /dev/zero; touch {tmp_path}/done"
    program = await host.converse(["sh", "-c", script], stdin=False, terminal=False)
    _, first = await program.read()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await program.ended()
    assert not (tmp_path / "done").exists()
    rest = await everything(program)
    assert len(first) + len(rest[STDOUT]) == 10_000_000
    assert await program.wait() == 0


async def test_write_waits_while_the_program_does_not_read(host: LinuxHost) -> None:
    program = await host.converse(["sleep", "30"], stdin=True, terminal=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await program.write(bytes(1 << 20))
    await program.close()


async def test_write_to_a_closed_stdin_is_a_broken_pipe(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "exec <&-; echo closed; sleep 30"], stdin=True, terminal=False)
    await until(program, b"closed")
    with pytest.raises(BrokenPipeError):
        await program.write(bytes(1 << 20))
    await program.close()


async def test_continuous_output_does_not_starve_the_loop(host: LinuxHost) -> None:
    program = await host.converse(["yes"], stdin=False, terminal=False)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    for _ in range(100):
        await program.read()
    other.cancel()
    assert turns >= 100
    await program.close()


async def test_close_kills_the_program(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "echo $$; exec sleep 30"], stdin=True, terminal=False)
    pid = int(await until(program, b"\n"))
    await program.close()
    assert await host.process(pid) is None
    await program.close()


async def test_terminal_has_a_size_and_job_control(host: LinuxHost) -> None:
    program = await host.converse(["sh"], stdin=True, terminal=True)
    await program.resize(33, 101)
    await program.write(b"PS1='prom''pt> '\n")
    await until(program, b"prompt> ")
    await program.write(b"stty size\n")
    assert b"33 101" in await until(program, b"33 101")
    await program.write(b"sh -c 'echo slee''ps; exec sleep 30'\n")
    await until(program, b"sleeps\r\n")
    await program.write(b"\x03")
    await until(program, b"prompt> ")
    await program.write(b"echo alive; exit 7\n")
    await until(program, b"alive\r\n")
    program.end_input()
    await everything(program)
    assert await program.wait() == 7


async def test_resize_sends_sigwinch_to_the_program(host: LinuxHost) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    program = await host.converse(["sh", "-c", script], stdin=True, terminal=True)
    await until(program, b"ready")
    await program.resize(44, 122)
    await until(program, b"44 122\r\n")
    assert await program.wait() == 0
    await program.close()


async def test_close_sends_sighup_on_a_terminal(host: LinuxHost, tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/hangup; exit' HUP; echo ready; while :; do sleep 0.1; done"
    program = await host.converse(["sh", "-c", script], stdin=True, terminal=True)
    await until(program, b"ready")
    await program.close()
    assert (tmp_path / "hangup").exists()


async def test_close_kills_a_program_that_ignores_sighup(host: LinuxHost) -> None:
    program = await host.converse(
        ["sh", "-c", "trap '' HUP; echo $$; exec sleep 30"], stdin=True, terminal=True
    )
    pid = int(await until(program, b"\n"))
    await program.close()
    assert await host.process(pid) is None


@pytest.mark.parametrize("terminal", [False, True])
async def test_converse_with_a_missing_program_names_it(host: LinuxHost, terminal: bool) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(HostError, match="run /no/such/program"):
        await host.converse(["/no/such/program"], stdin=True, terminal=terminal)
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@pytest.mark.parametrize("terminal", [False, True])
async def test_close_leaves_no_descriptors(host: LinuxHost, terminal: bool) -> None:
    async def once() -> None:
        program = await host.converse(["true"], stdin=True, terminal=terminal)
        await everything(program)
        await program.wait()
        await program.close()

    await once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await once()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_released_streams_outlive_their_program(host: LinuxHost) -> None:
    heir = "echo ready; read word; echo heard $word"
    script = f"exec 3<&0; setsid sh -c '{heir}' <&3 & exec sleep 30 3<&-"
    program = await host.converse(["sh", "-c", script], stdin=True, terminal=False)
    await until(program, b"ready")
    program.release()
    assert await program.wait() < 0
    await program.write(b"word\n")
    assert await everything(program) == {STDOUT: b"heard word\n", STDERR: b""}
    await program.close()
