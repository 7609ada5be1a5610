import asyncio

import pytest

from noderuntime.core.errors import Unavailable
from noderuntime.images.base import SnapshotUsage
from noderuntime.lifecycle.stats.layers import WritableLayers


class Snapshotter:
    """Returns, blocks or fails, as the test sets."""

    def __init__(self):
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    async def usage(self, key):
        self.asked.append(key)
        await self.gate.wait()
        if self.away:
            raise Unavailable("gone")
        return SnapshotUsage(100, 3)

    async def filesystem(self):
        return "/store"


@pytest.fixture
async def snapshotter():
    return Snapshotter()


@pytest.fixture
async def layers(snapshotter):
    layers = WritableLayers(snapshotter.usage, snapshotter.filesystem)
    yield layers
    await layers.close()


async def test_the_first_measurement_is_awaited_and_kept(layers, snapshotter):
    for _ in range(3):
        found = await layers.of(["a"])
        assert (found["a"].filesystem, found["a"].bytes, found["a"].inodes) == ("/store", 100, 3)
    assert snapshotter.asked == ["a"]


async def test_a_slow_snapshotter_does_not_block_a_list(layers, snapshotter):
    snapshotter.gate.clear()
    assert await asyncio.wait_for(layers.of(["a", "b", "c"]), 5) == {}
    assert await asyncio.wait_for(layers.of(["a", "b", "c"]), 5) == {}
    assert snapshotter.asked == ["a", "b"], "two at once, none twice"
    snapshotter.gate.set()
    assert set(await layers.of(["a", "b", "c"])) == {"a", "b", "c"}


async def test_a_failed_measurement_is_omitted_and_retried(layers, snapshotter):
    snapshotter.away = True
    assert await layers.of(["a"]) == {}
    snapshotter.away = False
    assert set(await layers.of(["a"])) == {"a"}


async def test_close_cancels_running_measurements(layers, snapshotter):
    snapshotter.gate.clear()
    asked = asyncio.create_task(layers.of(["a"]))
    await asyncio.sleep(0)
    await layers.close()
    assert await asked == {}
