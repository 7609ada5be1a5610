"""Where workers come from: forked from a process that is ready, and buried by it."""

import asyncio
import errno
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from layer_archives import TAR
from layer_workers import children, ended, templates

from noderuntime.core.errors import HostError, Internal
from noderuntime.node.layers.pool import Unpackers
from noderuntime.node.layers.spawner import WorkerSpawner
from noderuntime.node.layers.template import Template


@pytest.fixture
async def nursery():
    one = WorkerSpawner()
    yield one
    await one.close()


async def release(line, pidfd):
    line.close()
    os.close(pidfd)


def kinds(pid):
    """Tell what a process has open; what it closes meanwhile is left out."""
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(file).partition(":")[0])
    return found


async def test_a_pool_that_got_ready_starts_no_more_interpreters(blob, place):
    pool = Unpackers(2)
    await pool.prepare()
    async with asyncio.timeout(10):
        while not (before := templates()):
            await asyncio.sleep(0.001)  # the kernel tells its name a moment later
    assert children() == set()
    await asyncio.gather(*(pool.unpack(blob(), place(), TAR) for _ in range(2)))
    assert (templates(), len(children())) == (before, 2)
    await pool.close()
    assert templates() == set()


async def test_a_worker_is_no_member_of_its_templates_group(nursery):
    line, pidfd = await nursery.worker()
    (template,), (worker,) = templates(), children()
    assert os.getpgid(template) == template
    assert os.getpgid(worker) == worker
    await release(line, pidfd)


async def test_a_worker_holds_nothing_but_its_own_line(nursery):
    made = [await nursery.worker() for _ in range(3)]
    for pid in children():
        async with asyncio.timeout(10):
            while kinds(pid).count("socket") != 1 or "anon_inode" in kinds(pid):
                await asyncio.sleep(0.001)  # it closes what it does not need itself
    for line, pidfd in made:
        await release(line, pidfd)


async def test_ended_workers_are_buried(nursery):
    line, pidfd = await nursery.worker()
    (pid,) = children()
    await release(line, pidfd)
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.001)  # another process does it


async def test_a_template_that_died_is_replaced(nursery, blob, place):
    await release(*await nursery.worker())
    (pid,) = templates()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    await release(*await nursery.worker())
    assert len(templates() - {pid}) == 1


async def test_workers_outlive_their_template(unpackers, blob, place):
    layer = blob(there=1000)
    task = asyncio.create_task(unpackers.unpack(layer, place(), TAR))
    async with asyncio.timeout(20):
        await layer.asked.wait()
    (pid,) = templates()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    layer.write(len(layer.content))
    layer.growth.finish()
    assert (await task).entries == 3


async def test_a_template_that_dies_of_the_request(nursery, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(Internal, match="the process that makes workers died"):
        await nursery.worker()
    monkeypatch.undo()
    await release(*await nursery.worker())


async def test_a_caller_that_does_not_wait(nursery):
    task = asyncio.create_task(nursery.worker())
    while not templates():
        await asyncio.sleep(0.001)  # a thread starts it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    line, pidfd = await nursery.worker()
    assert len(children()) == 1
    await release(line, pidfd)


async def test_a_kernel_that_makes_no_process(nursery, monkeypatch):
    """What the template says then, and what the daemon makes of it."""

    def refuse():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    ours, theirs = socket.socketpair()
    with theirs, ours:
        thread = threading.Thread(target=Template(theirs).run)
        thread.start()
        socket.send_fds(ours, [b"\0"], [ours.fileno()])
        said = ours.recv(1)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert said == bytes([errno.EAGAIN])

    async def say(self, theirs):
        raise HostError("make a worker", errno.EAGAIN, "")

    await release(*await nursery.worker())
    before = templates()
    monkeypatch.setattr("noderuntime.node.layers.spawner._Template.fork", say)
    with pytest.raises(HostError, match="make a worker"):
        await nursery.worker()
    monkeypatch.undo()
    await release(*await nursery.worker())
    assert templates() == before
