"""The template process, which forks workers and reaps them."""

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
async def spawner():
    made = WorkerSpawner()
    yield made
    await made.close()


async def release(connection, pidfd):
    connection.close()
    os.close(pidfd)


def kinds(pid):
    """Return the kinds of descriptors that a process has open."""
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(file).partition(":")[0])
    return found


async def test_prepared_pool_starts_no_second_interpreter(blob, new_directory):
    pool = Unpackers(2)
    await pool.prepare()
    async with asyncio.timeout(10):
        while not (before := templates()):
            await asyncio.sleep(0.001)  # the command line appears in /proc after the exec
    assert children() == set()
    await asyncio.gather(*(pool.unpack(blob(), new_directory(), TAR) for _ in range(2)))
    assert (templates(), len(children())) == (before, 2)
    await pool.close()
    assert templates() == set()


async def test_worker_has_a_process_group_of_its_own(spawner):
    connection, pidfd = await spawner.worker()
    (template,), (worker,) = templates(), children()
    assert os.getpgid(template) == template
    assert os.getpgid(worker) == worker
    await release(connection, pidfd)


async def test_worker_has_no_descriptor_but_its_socket(spawner):
    made = [await spawner.worker() for _ in range(3)]
    for pid in children():
        async with asyncio.timeout(10):
            while kinds(pid).count("socket") != 1 or "anon_inode" in kinds(pid):
                await asyncio.sleep(0.001)  # the worker itself closes inherited descriptors
    for connection, pidfd in made:
        await release(connection, pidfd)


async def test_exited_workers_are_reaped(spawner):
    connection, pidfd = await spawner.worker()
    (pid,) = children()
    await release(connection, pidfd)
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.001)  # the template reaps it


async def test_dead_template_is_replaced(spawner, blob, new_directory):
    await release(*await spawner.worker())
    (pid,) = templates()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    await release(*await spawner.worker())
    assert len(templates() - {pid}) == 1


async def test_workers_survive_the_death_of_their_template(unpackers, blob, new_directory):
    layer = blob(available=1000)
    task = asyncio.create_task(unpackers.unpack(layer, new_directory(), TAR))
    async with asyncio.timeout(20):
        await layer.requested.wait()
    (pid,) = templates()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    layer.write(len(layer.content))
    layer.growth.finish()
    assert (await task).entries == 3


async def test_template_that_dies_twice_is_an_error(spawner, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(Internal, match="the template process of unpack workers died"):
        await spawner.worker()
    monkeypatch.undo()
    await release(*await spawner.worker())


async def test_cancelled_caller_leaves_no_worker(spawner):
    task = asyncio.create_task(spawner.worker())
    while not templates():
        await asyncio.sleep(0.001)  # a thread starts the template
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    connection, pidfd = await spawner.worker()
    assert len(children()) == 1
    await release(connection, pidfd)


async def test_failed_fork_is_reported(spawner, monkeypatch):
    """The template sends the errno, and the daemon raises it and keeps the template."""

    def refuse():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    daemon_end, remote_end = socket.socketpair()
    with remote_end, daemon_end:
        thread = threading.Thread(target=Template(remote_end).run)
        thread.start()
        socket.send_fds(daemon_end, [b"\0"], [daemon_end.fileno()])
        answer = daemon_end.recv(1)
        daemon_end.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert answer == bytes([errno.EAGAIN])

    async def failing_fork(self, remote_end):
        raise HostError("fork an unpack worker", errno.EAGAIN, "")

    await release(*await spawner.worker())
    before = templates()
    monkeypatch.setattr("noderuntime.node.layers.spawner._Template.fork", failing_fork)
    with pytest.raises(HostError, match="fork an unpack worker"):
        await spawner.worker()
    monkeypatch.undo()
    await release(*await spawner.worker())
    assert templates() == before
