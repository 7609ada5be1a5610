"""Programs whose stdio we hold; they are run for real: /bin/sh is everywhere."""

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
    """Read until the program has said all."""
    said = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(20):
        while True:
            stream, data = await program.read()
            if not data:
                return said
            said[stream] += data


async def until(program: Program, words: bytes) -> bytes:
    """Read until these words have come."""
    said = b""
    async with asyncio.timeout(20):
        while words not in said:
            _, data = await program.read()
            assert data, said
            said += data
    return said


async def test_streams_and_status(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=True, terminal=False)
    await program.write(b"in")
    program.end_input()
    assert await everything(program) == {STDOUT: b"in", STDERR: b"err\n"}
    assert (await program.wait(), await program.wait()) == (3, 3)
    await program.close()


async def test_without_stdin_there_is_nothing_to_read(host: LinuxHost) -> None:
    program = await host.converse(["cat"], stdin=False, terminal=False)
    assert await everything(program) == {STDOUT: b"", STDERR: b""}
    with pytest.raises(BrokenPipeError):
        await program.write(b"x")
    assert await program.wait() == 0


async def test_what_was_said_before_the_end_can_be_read_after_it(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "echo out; echo err >&2"], stdin=False, terminal=False)
    assert await program.wait() == 0
    assert await everything(program) == {STDOUT: b"out\n", STDERR: b"err\n"}
    await program.close()


async def test_others_that_hold_the_pipes_are_not_waited_for(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "sleep 30 & echo $!"], stdin=False, terminal=False)
    said = await everything(program)
    assert await program.wait() == 0
    await program.close()
    left = await host.process(int(said[STDOUT]))
    assert left is not None
    assert await host.signal(left, signal.SIGKILL)


async def test_a_program_that_closes_its_outputs_has_said_all(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "exec >&- 2>&-; exec sleep 30"], stdin=False, terminal=False)
    assert await everything(program) == {STDOUT: b"", STDERR: b""}
    await program.close()


async def test_who_reads_nothing_makes_the_program_wait(host: LinuxHost, tmp_path: Path) -> None:
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


async def test_a_program_that_reads_nothing_makes_the_writer_wait(host: LinuxHost) -> None:
    program = await host.converse(["sleep", "30"], stdin=True, terminal=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await program.write(bytes(1 << 20))
    await program.close()


async def test_a_program_that_has_closed_its_stdin_says_so(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "exec <&-; echo closed; sleep 30"], stdin=True, terminal=False)
    await until(program, b"closed")
    with pytest.raises(BrokenPipeError):
        await program.write(bytes(1 << 20))
    await program.close()


async def test_a_loud_program_leaves_the_loop_to_others(host: LinuxHost) -> None:
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


async def test_closing_ends_the_program(host: LinuxHost) -> None:
    program = await host.converse(["sh", "-c", "echo $$; exec sleep 30"], stdin=True, terminal=False)
    pid = int(await until(program, b"\n"))
    await program.close()
    assert await host.process(pid) is None
    await program.close()


async def test_a_terminal_with_size_and_control(host: LinuxHost) -> None:
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


async def test_a_resized_terminal_tells_its_program(host: LinuxHost) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    program = await host.converse(["sh", "-c", script], stdin=True, terminal=True)
    await until(program, b"ready")
    await program.resize(44, 122)
    await until(program, b"44 122\r\n")
    assert await program.wait() == 0
    await program.close()


async def test_a_terminal_that_is_closed_hangs_up(host: LinuxHost, tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/hangup; exit' HUP; echo ready; while :; do sleep 0.1; done"
    program = await host.converse(["sh", "-c", script], stdin=True, terminal=True)
    await until(program, b"ready")
    await program.close()
    assert (tmp_path / "hangup").exists()


async def test_who_ignores_the_hangup_is_killed(host: LinuxHost) -> None:
    program = await host.converse(
        ["sh", "-c", "trap '' HUP; echo $$; exec sleep 30"], stdin=True, terminal=True
    )
    pid = int(await until(program, b"\n"))
    await program.close()
    assert await host.process(pid) is None


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_missing_program_is_named(host: LinuxHost, terminal: bool) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(HostError, match="run /no/such/program"):
        await host.converse(["/no/such/program"], stdin=True, terminal=terminal)
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@pytest.mark.parametrize("terminal", [False, True])
async def test_descriptors_are_given_back(host: LinuxHost, terminal: bool) -> None:
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
