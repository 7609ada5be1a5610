"""The order in which the hosts of a registry are tried."""

import pytest

from noderuntime.core import log
from noderuntime.core.errors import DataLoss, NotFound, Unavailable
from noderuntime.images.reference import parse
from noderuntime.images.registry.endpoints import RegistryHost
from noderuntime.images.registry.mirrors import Mirrors

IMAGE = parse("registry.test/app:1")


class FakeHosts:
    """A registry with two mirrors."""

    async def lookup(self, registry):
        mirrors = [RegistryHost("https", name, is_registry=False) for name in ("first", "second")]
        return (*mirrors, RegistryHost("https", registry))


class Site:
    """Mirrors with a clock. ``failing`` has the errors of hosts that fail."""

    def __init__(self):
        self.now = 1000.0
        self.failing = {}
        self.mirrors = Mirrors(FakeHosts(), lambda: self.now)

    async def tried(self):
        """Make a call and return the hosts that it tried."""
        tried = []

        async def ask(host):
            tried.append(host.authority)
            if host.authority in self.failing:
                raise self.failing[host.authority]
            return host

        await self.mirrors.first(IMAGE, "pull", ask)
        return tried


@pytest.fixture
def site():
    return Site()


@pytest.mark.parametrize(("error", "seconds"), [(Unavailable("timed out"), 60), (DataLoss("corrupt"), 300)])
async def test_failed_mirror_is_tried_last_for_a_while(site, capsys, error, seconds):
    log.configure("info")
    site.failing["first"] = error
    assert await site.tried() == ["first", "second"]
    assert await site.tried() == ["second"]
    site.failing["second"] = site.failing["registry.test"] = NotFound("not there")
    del site.failing["first"]
    assert await site.tried() == ["second", "registry.test", "first"]
    site.now += seconds - 1
    assert await site.tried() == ["second", "registry.test", "first"]
    site.now += 1
    assert await site.tried() == ["first"]
    [line] = capsys.readouterr().err.splitlines()
    assert f"host=first s={seconds}" in line


async def test_mirror_without_the_image_is_tried_first_again(site):
    site.failing["first"] = NotFound("not there")
    assert await site.tried() == ["first", "second"]
    assert await site.tried() == ["first", "second"]


async def test_corrupt_mirror_that_is_unavailable_later_stays_last(site):
    site.failing["first"] = DataLoss("corrupt")
    await site.tried()
    site.failing = {name: Unavailable("down") for name in ("first", "second")}
    assert await site.tried() == ["second", "registry.test"]
    site.now += 61
    site.failing = {}
    assert await site.tried() == ["second"]
    site.failing = {"second": NotFound(""), "registry.test": NotFound("")}
    assert await site.tried() == ["second", "registry.test", "first"]
