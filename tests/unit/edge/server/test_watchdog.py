import asyncio
import threading

import pytest

from noderuntime.core.blocking import Lane
from noderuntime.core.tasks import Scope, start
from noderuntime.edge.server.watchdog import report_alive


class Manager:
    """The notifications that systemd would receive."""

    def __init__(self):
        self.heard = []
        self.changed = asyncio.Event()

    def send(self, state):
        self.heard.append(state)
        self.changed.set()

    async def next(self):
        self.changed.clear()
        await asyncio.wait_for(self.changed.wait(), 10)


async def test_watchdog_is_notified_while_lanes_progress():
    manager = Manager()
    async with Scope() as scope:
        scope.start(report_alive(pytest.fail, 0.03, manager.send), name="watchdog")
        for _ in range(3):
            await manager.next()
    assert set(manager.heard) == {"WATCHDOG=1"}


async def test_watchdog_is_not_notified_while_a_lane_stalls():
    manager, stalls, release = Manager(), [], threading.Event()
    stalled = asyncio.Event()
    lane = Lane("stalled", 1)

    def on_stall():
        stalls.append(len(manager.heard))
        stalled.set()

    async with Scope() as scope:
        calls = [start(lane.run(release.wait, 10), name="call") for _ in range(2)]
        scope.start(report_alive(on_stall, 0.06, manager.send), name="watchdog")
        await asyncio.wait_for(stalled.wait(), 10)
        await asyncio.sleep(0.1)  # several times the interval
        assert len(manager.heard) == stalls[0]
        release.set()
        await asyncio.gather(*calls)
        await manager.next()
    assert len(stalls) == 1
    lane.close()


async def test_busy_lane_without_queue_is_not_stalled():
    manager, release = Manager(), threading.Event()
    lane = Lane("busy", 1)
    call = start(lane.run(release.wait, 10), name="call")
    async with Scope() as scope:
        scope.start(report_alive(pytest.fail, 0.03, manager.send), name="watchdog")
        for _ in range(4):
            await manager.next()
    release.set()
    await call
    lane.close()
