"""GC: which attachments are valid, and that nothing runs beside it."""

import asyncio
import json

import pytest

from noderuntime.core.errors import ToolError, Unavailable
from noderuntime.node.host.base import Completed
from noderuntime.node.network.cni import CniNetwork


def configure(conf_dir, name="pods", version="1.1.0", **fields):
    plugins = [{"type": "bridge", "capabilities": {"portMappings": True}}, {"type": "portmap"}]
    content = {"name": name, "cniVersion": version, "plugins": plugins} | fields
    (conf_dir / "10-pods.conflist").write_text(json.dumps(content))


@pytest.fixture
def network(host, conf_dir, plugin_dir, paths):
    configure(conf_dir)
    return CniNetwork(host, conf_dir, [plugin_dir], paths)


def collected(host):
    """Return the valid container IDs of each GC, by network and plugin."""
    return {
        (config["name"], kind): [one["containerID"] for one in config["cni.dev/valid-attachments"]]
        for command, kind, config, _ in host.calls
        if command == "GC"
    }


async def test_gc_passes_the_valid_attachments_to_every_plugin(network, host):
    await network.collect_garbage(lambda: {"5b": b"", "77": b""})
    assert host.order == [("GC", "bridge"), ("GC", "portmap")]
    valid = [{"containerID": "5b", "ifname": "eth0"}, {"containerID": "77", "ifname": "eth0"}]
    assert host.calls[0][2] == {
        "type": "bridge",
        "capabilities": {"portMappings": True},
        "name": "pods",
        "cniVersion": "1.1.0",
        "cni.dev/valid-attachments": valid,
        "cni.dev/attachments": valid,
    }
    assert host.timeouts == [10, 10], "pods wait for 20 s at most"


@pytest.mark.parametrize(
    "fields", [{"version": "1.0.0"}, {"disableGC": True}, {"disableGC": "true"}, {"disableGC": "odd"}]
)
async def test_gc_is_not_called_if_unsupported_or_disabled(network, host, conf_dir, fields):
    configure(conf_dir, **fields)
    await network.collect_garbage(dict)
    assert host.calls == []


async def test_gc_lists_the_attachments_of_each_network(network, host, conf_dir, attach):
    old = (await attach()).result
    configure(conf_dir, name="new")
    new = (await attach("77")).result
    await network.collect_garbage(lambda: {"5b": old, "77": new, "unfinished": b"", "damaged": b"{"})
    assert collected(host) == {
        ("pods", "bridge"): ["5b", "unfinished", "damaged"],
        ("pods", "portmap"): ["5b", "unfinished", "damaged"],
        ("new", "bridge"): ["77", "unfinished", "damaged"],
        ("new", "portmap"): ["77", "unfinished", "damaged"],
    }


async def test_gc_respects_disable_gc_of_a_former_configuration(network, host, conf_dir, attach):
    configure(conf_dir, disableGC=True)
    kept = (await attach()).result
    configure(conf_dir, name="new")
    await network.collect_garbage(lambda: {"5b": kept})
    assert {name for name, _ in collected(host)} == {"new"}


async def test_failed_gc_calls_every_plugin(network, host):
    host.answers["GC", "bridge"] = Completed(1, b'{"code": 5, "msg": "cannot list"}', b"")
    with pytest.raises(ToolError, match="CNI plugin bridge GC failed with exit status 1: cannot list"):
        await network.collect_garbage(dict)
    assert host.order == [("GC", "bridge"), ("GC", "portmap")]


async def test_gc_without_a_configuration_is_unavailable(network, conf_dir):
    (conf_dir / "10-pods.conflist").unlink()
    with pytest.raises(Unavailable, match="not configured"):
        await network.collect_garbage(dict)


async def test_gc_waits_for_a_running_add_and_lists_it(network, host, attach):
    gate = host.hold["ADD", "bridge"] = asyncio.Event()
    known = {}
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(attach())
        await host.held.wait()
        collecting = group.create_task(network.collect_garbage(lambda: known))
        await asyncio.sleep(0.01)
        assert not collecting.done()
        known["5b"] = b""  # the ledger knows it when its ADD has ended
        gate.set()
        await adding
    assert host.order == [("ADD", "bridge"), ("ADD", "portmap"), ("GC", "bridge"), ("GC", "portmap")]
    assert collected(host)["pods", "bridge"] == ["5b"]


@pytest.mark.parametrize("command", ["ADD", "DEL"])
async def test_add_and_del_wait_for_a_running_gc(network, host, pod, netns, command, attach):
    gate = host.hold["GC", "portmap"] = asyncio.Event()
    work = attach() if command == "ADD" else network.detach("5b", netns, pod, b"")
    async with asyncio.TaskGroup() as group:
        group.create_task(network.collect_garbage(dict))
        await host.held.wait()
        group.create_task(work)
        await asyncio.sleep(0.01)
        assert host.order == [("GC", "bridge"), ("GC", "portmap")]
        gate.set()
    assert {kind for kind, _ in host.order[2:]} == {command}


async def test_add_does_not_wait_for_a_waiting_gc(network, host, pod, netns, attach):
    gate = host.hold["DEL", "bridge"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(network.detach("77", netns, pod, b""))
        await host.held.wait()
        collecting = group.create_task(network.collect_garbage(dict))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await attach()
        assert not collecting.done()
        gate.set()
    assert host.order[-1] == ("GC", "portmap")
