"""Watches for the ends of real processes."""

import asyncio
import resource
import subprocess

import pytest

from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.process import identify
from noderuntime.node.host.process_watch import Watch


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "1000"]) as started:
        yield started
        started.kill()


@pytest.fixture
def no_descriptors():
    """Return a function that makes every further descriptor fail with EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_watch_reports_the_end_of_a_process_once(process):
    ended = asyncio.Queue()
    Watch(identify(process.pid), lambda: ended.put_nowait(process.pid))
    await asyncio.sleep(0)
    assert ended.empty()
    process.kill()
    async with asyncio.timeout(5):
        assert await ended.get() == process.pid
    await asyncio.sleep(0)
    assert ended.empty()


@pytest.mark.parametrize("gone", ["ended", "another process has the PID"])
async def test_watch_reports_a_process_that_has_ended(process, gone):
    ref = ProcessRef(process.pid, 1)
    if gone == "ended":
        ref = identify(process.pid)
        process.kill()
        process.wait()
    ended = asyncio.Event()
    Watch(ref, ended.set)
    assert not ended.is_set(), "not called before the caller has the watch"
    async with asyncio.timeout(5):
        await ended.wait()


async def test_closed_watch_reports_nothing(process):
    ended, closed_ended = asyncio.Event(), asyncio.Event()
    Watch(identify(process.pid), closed_ended.set).close()
    Watch(identify(process.pid), ended.set)
    process.kill()
    async with asyncio.timeout(5):
        await ended.wait()
    assert not closed_ended.is_set()


async def test_watch_polls_when_no_descriptor_is_left(process, no_descriptors):
    ref, ended = identify(process.pid), asyncio.Event()
    no_descriptors()
    Watch(ref, ended.set)
    process.kill()
    process.wait()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_watch_opens_a_pidfd_once_descriptors_are_free(process, no_descriptors):
    ref, ended = identify(process.pid), asyncio.Event()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    no_descriptors()
    watch = Watch(ref, ended.set)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with asyncio.timeout(5):
        while watch._pidfd < 0:
            await asyncio.sleep(0.01)
    process.kill()
    async with asyncio.timeout(5):
        await ended.wait()
