"""Reads from a fifo whose writer waits for a reader."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.linux import LinuxHost


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def host() -> LinuxHost:
    return LinuxHost()


async def identified(host: LinuxHost, child: subprocess.Popen[bytes]) -> ProcessRef:
    found = await host.process(child.pid)
    assert found is not None
    return found


@pytest.mark.parametrize("first", ["", "sleep 0.2; "], ids=["writer first", "reader first"])
async def test_read_fifo_unblocks_its_writer(host: LinuxHost, fifo: Path, first: str) -> None:
    with subprocess.Popen(["sh", "-c", f"{first}echo -n 0 >{fifo}; exec sleep 1000"]) as child:
        assert await host.read_fifo(fifo, await identified(host, child), timeout=20)
        child.kill()


async def test_read_fifo_returns_when_the_writer_ends(host: LinuxHost, fifo: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        writer = await identified(host, child)
        asyncio.get_running_loop().call_later(0.1, child.kill)
        assert not await host.read_fifo(fifo, writer, timeout=20)


async def test_read_fifo_returns_at_its_timeout(host: LinuxHost, fifo: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        assert not await host.read_fifo(fifo, await identified(host, child), timeout=0.1)
        child.kill()


async def test_read_fifo_rejects_a_symlink_and_a_missing_file(host: LinuxHost, tmp_path: Path) -> None:
    me = await host.process(os.getpid())
    assert me is not None
    assert not await host.read_fifo(tmp_path / "none", me, timeout=20)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(HostError, match="link"):
        await host.read_fifo(tmp_path / "link", me, timeout=20)
