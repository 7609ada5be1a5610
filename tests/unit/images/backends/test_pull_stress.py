"""Random concurrent calls by seed: listed images are always complete, and nothing is left at the end."""

import asyncio
import random
from pathlib import Path

import pytest

from noderuntime.core.errors import DataLoss, NoderuntimeError, NotFound, Unavailable

NAME = "registry.test/app"
TAGS = [str(number) for number in range(6)]


def publish(site, dice):
    """Publish images that share layers, some of which fail at times."""
    pool = [{"shared": str(number).encode() * 3000} for number in range(4)]
    built = {}
    for tag in TAGS:
        layers = [*pool[: dice.randint(1, 4)], {"own": tag.encode() * dice.randint(1, 200_000)}]
        built[tag] = site.remote.image(tag, *layers)
        for layer in built[tag].layers:
            errors = [Unavailable("reset"), DataLoss("lies"), NotFound("gone")]
            site.remote.breaks[layer.digest] = [
                (dice.randint(0, layer.size), dice.choice(errors)) for _ in range(dice.randint(0, 2))
            ]
    return built


async def use(site, dice, built, key):
    """Make one random call, and sometimes cancel it."""
    tag = dice.choice(TAGS)
    text = f"{NAME}:{tag}"
    target = Path(f"/{key}")

    async def run():
        image = await site.backend.image(text)
        await site.backend.prepare(key, image, target, {})
        assert site.file(built[tag], "own") is not None
        await asyncio.sleep(dice.random() / 100)
        assert site.file(built[tag], "own") is not None, "a container's layers were collected"
        await site.backend.release(key, target)

    verbs = (lambda: site.backend.pull(text), lambda: site.backend.remove(text), run)
    task = asyncio.ensure_future(dice.choices(verbs, (5, 1, 3))[0]())
    await asyncio.wait([task], timeout=dice.random() / 20)
    if dice.random() < 0.3:
        task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        assert isinstance(error, NoderuntimeError), error
    await site.backend.release(key, target)


def check(site, built):
    for image in site.backend.list_images():
        [tag] = [tag for tag in TAGS if built[tag].id == image.id]
        assert len(site.store.catalog.chain(image.chain_id)) == len(built[tag].layers)
        assert site.file(built[tag], "own").startswith(tag.encode())


@pytest.mark.parametrize("seed", range(8))
async def test_the_store_survives_random_concurrent_calls(site, seed):
    dice = random.Random(seed)
    built = publish(site, dice)

    async def caller(number):
        for turn in range(12):
            await use(site, dice, built, f"{number}-{turn}")
            check(site, built)

    await asyncio.gather(*(caller(number) for number in range(6)))
    check(site, built)
    before = site.backend.list_images()
    await site.again()
    assert sorted(image.id for image in site.backend.list_images()) == sorted(image.id for image in before)
    for tag in TAGS:
        site.remote.breaks.clear()
        assert await site.backend.pull(f"{NAME}:{tag}") == built[tag].id
    check(site, built)
    for tag in TAGS:
        await site.backend.remove(f"{NAME}:{tag}")
    await site.store.collector.collect(lambda _: True)
    assert site.left() == {}
    assert site.host.mounted == {}
    assert site.store.catalog._held == {}
