"""Starts of programs that run out of descriptors leak none."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError
from noderuntime.node.host.linux import LinuxHost


@pytest.fixture
def host() -> LinuxHost:
    return LinuxHost()


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Limit the process to ``count`` further descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fillers = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(highest + 1)]
    spare = os.dup(fillers[-1])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + count, hard))
        os.close(spare)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


async def run(host: LinuxHost) -> None:
    await host.run(["true"], timeout=10, stdin=b"input")


async def launch(host: LinuxHost) -> None:
    await (await host.launch(["true"], gate="G", reply="R")).close()


async def converse(host: LinuxHost) -> None:
    await (await host.converse(["true"], stdin=True, terminal=False)).close()


async def converse_on_a_terminal(host: LinuxHost) -> None:
    await (await host.converse(["true"], stdin=True, terminal=True)).close()


@pytest.mark.parametrize("start", [run, launch, converse, converse_on_a_terminal])
async def test_start_that_runs_out_of_descriptors_leaks_none(
    host: LinuxHost, start: Callable[[LinuxHost], Awaitable[None]]
) -> None:
    await start(host)
    before, failures = sorted(os.listdir("/proc/self/fd")), 0
    while failures < 20:
        try:
            with room_for(failures):
                await start(host)
            break
        except HostError:
            failures += 1
        assert sorted(os.listdir("/proc/self/fd")) == before
    assert 4 <= failures < 20
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_program_without_a_pidfd_is_killed(host: LinuxHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    before = children()
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", full)
        with pytest.raises(HostError, match="run sleep: Too many open files"):
            await host.run(["sleep", "60"], timeout=60)
        async with asyncio.timeout(10):
            while children() != before:
                await asyncio.sleep(0.01)


def children() -> list[str]:
    return [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
