"""NetworkReady: the configuration, its plugins, and what these say of themselves."""

import asyncio
import json
import os

import pytest

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import DeadlineExceeded
from noderuntime.node.host.base import Completed
from noderuntime.node.network import cni
from noderuntime.node.network.cni import CniNetwork


def configure(conf_dir, version):
    chain = {"name": "pods", "cniVersion": version, "plugins": [{"type": "bridge"}, {"type": "portmap"}]}
    (conf_dir / "10-pods.conflist").write_text(json.dumps(chain))


@pytest.fixture
def network(host, conf_dir, plugin_dir, paths):
    configure(conf_dir, "1.1.0")
    return CniNetwork(host, conf_dir, [plugin_dir], paths)


def failed(code, message):
    return Completed(1, json.dumps({"code": code, "msg": message}).encode(), b"")


async def test_ready_calls_status_of_every_plugin(network, host):
    assert await network.ready() == (True, "")
    assert host.order == [("STATUS", "bridge"), ("STATUS", "portmap")]
    _, _, config, env = host.calls[0]
    assert config == {"type": "bridge", "name": "pods", "cniVersion": "1.1.0"}
    assert (env["CNI_CONTAINERID"], env["CNI_NETNS"], env["CNI_IFNAME"], env["CNI_ARGS"]) == ("", "", "", "")
    assert env["CNI_PATH"]
    assert host.timeouts[0] == pytest.approx(5, abs=1)


async def test_status_is_not_called_before_version_1_1(network, host, conf_dir):
    configure(conf_dir, "1.0.0")
    assert await network.ready() == (True, "")
    assert host.calls == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            failed(50, "agent is away"),
            "CNI plugin bridge STATUS failed with exit status 1: agent is away"
            " (CNI error 50: the plugin cannot serve ADD)",
        ),
        (
            failed(51, "no route"),
            "CNI plugin bridge STATUS failed with exit status 1: no route"
            " (CNI error 51: the plugin cannot serve ADD, and existing pods may have limited connectivity)",
        ),
        (failed([50], "odd"), "CNI plugin bridge STATUS failed with exit status 1: odd"),
        (
            DeadlineExceeded("bridge did not finish within 5 s"),
            "CNI plugin bridge STATUS: bridge did not finish within 5 s",
        ),
    ],
)
async def test_ready_returns_the_first_failed_status(network, host, answer, reason):
    host.answers["STATUS", "bridge"] = answer
    assert await network.ready() == (False, reason)
    assert host.order == [("STATUS", "bridge")], "the first error ends the chain"


async def test_status_is_cached_until_the_configuration_changes(network, host, conf_dir):
    host.answers["STATUS", "portmap"] = failed(50, "away")
    assert [(await network.ready())[0] for _ in range(3)] == [False] * 3
    assert len(host.calls) == 2
    del host.answers["STATUS", "portmap"]
    configure(conf_dir, "1.0.0")
    assert await network.ready() == (True, "")
    configure(conf_dir, "1.1.0")
    assert await network.ready() == (True, "")
    assert len(host.calls) == 4


async def test_failed_status_does_not_prevent_add(network, host, attach):
    host.answers["STATUS", "bridge"] = failed(50, "away")
    await network.ready()
    assert (await attach()).ips == ("10.9.0.2",)


async def test_ready_reports_a_directory_that_hangs(network, conf_dir, monkeypatch):
    """A FIFO hangs its reader as a network filesystem does that is away."""
    monkeypatch.setattr(cni, "DISK_SECONDS", 0.1)
    file = conf_dir / "pods/10-more.conf"
    file.parent.mkdir()
    os.mkfifo(file)
    assert await network.ready() == (False, "read of the CNI configuration did not finish within 0.1 s")
    async with asyncio.timeout(0.09):
        ready, reason = await network.ready()
    assert not ready
    assert "read of the CNI configuration: an earlier call has been hanging" in reason
    assert FILES.load().queued == 0
    with file.open("w", encoding="ascii") as fifo:
        file.unlink()
        file.write_text('{"type": "portmap"}', encoding="ascii")
        fifo.write('{"type": "portmap"}')
    while not (await network.ready())[0]:
        await asyncio.sleep(0)
