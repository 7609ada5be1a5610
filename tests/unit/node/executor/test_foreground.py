"""Execs whose stdio is held, with small scripts in the runtime's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from noderuntime.core.errors import NotFound, ToolError
from noderuntime.node.executor.command import OciCommand
from noderuntime.node.executor.execfiles import ExecFiles
from noderuntime.node.executor.foreground import Foreground
from noderuntime.node.host.base import Program
from noderuntime.node.host.linux import LinuxHost

_PROCESS = {"args": ["app"], "terminal": False}


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start a script that finds the spec and the PID file as its second and third argument."""
    foreground = Foreground(ExecFiles(tmp_path / "exec"))

    async def start_(script: str, **fields: object) -> Program:
        runtime = tmp_path / "runtime"
        runtime.write_text(f"#!/bin/sh\n{script}\n")
        runtime.chmod(0o755)
        command = OciCommand(LinuxHost(), runtime, ())
        started = await foreground.start(command, lambda *paths: paths, _PROCESS | fields, stdin=True)
        assert started.pid == 42
        return started.program

    before = _readers()
    yield start_
    assert list((tmp_path / "exec").iterdir()) == []
    assert _readers() == before


def _readers() -> set[int]:
    """Return the descriptors that the event loop waits for."""
    return set(asyncio.get_running_loop()._selector.get_map())


async def test_it_is_started_when_its_pid_is_written(start) -> None:
    program = await start('echo about itself; grep -q app "$2" && echo 42 >"$3"; cat; exit 3')
    await program.write(b"in")
    program.end_input()
    said = b""
    while data := (await program.read())[1]:
        said += data
    assert said == b"about itself\nin"
    assert await program.wait() == 3


async def test_one_that_ends_at_once_was_started_all_the_same(start) -> None:
    program = await start('echo 42 >"$3"; exit 5')
    assert await program.wait() == 5


@pytest.mark.parametrize("terminal", [False, True])
async def test_one_that_never_ran_is_the_runtimes_failure(start, terminal: bool) -> None:
    with pytest.raises(ToolError, match="runtime exec failed with exit status 255: no such thing"):
        await start("echo no such thing >&2; exit 255", terminal=terminal)


async def test_a_missing_runtime_is_named(tmp_path: Path) -> None:
    command = OciCommand(LinuxHost(), tmp_path / "none", ())
    with pytest.raises(NotFound, match="none is missing"):
        await Foreground(ExecFiles(tmp_path)).start(command, lambda *paths: paths, _PROCESS, stdin=False)


async def test_who_leaves_while_it_starts_leaves_nothing(start, tmp_path: Path) -> None:
    starting = asyncio.create_task(start(f"echo $$ >{tmp_path}/pid; sleep 30"))
    async with asyncio.timeout(10):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert await LinuxHost().process(int((tmp_path / "pid").read_text())) is None
