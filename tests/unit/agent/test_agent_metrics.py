"""The agent's metrics, as a scrape of a node with the real agent and switch reads them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from fakenode import SPEC, FakeNode
from prometheus_client.parser import text_string_to_metric_families

from noderuntime.agent import layout
from noderuntime.agent.loop import Loop
from noderuntime.agent.main import application
from noderuntime.agent.metrics import AgentMetrics
from noderuntime.agent.node import Node
from noderuntime.agent.switch.run import apply
from noderuntime.agent.systemd import Systemd
from noderuntime.core.errors import NoderuntimeError

DIGEST, NEXT = "e" * 16, "f" * 16


class Api:
    """An API server with one instance, which accepts every status."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def get(self) -> dict[str, Any]:
        meta = {"generation": 1, "resourceVersion": "1"}
        return {"metadata": meta, "spec": SPEC.model_dump(by_alias=True)}

    async def watch(self, _version: str) -> AsyncIterator[dict[str, Any]]:
        await asyncio.Event().wait()
        yield {}

    async def patch_status(self, status: dict[str, Any]) -> dict[str, Any]:
        self.reports.put_nowait(status)
        return {"status": status}

    async def reported(self, *phases: str) -> None:
        """Wait until the agent reports one of these phases."""
        async with asyncio.timeout(20):
            while (await self.reports.get())["phase"] not in phases:
                pass


class Agent:
    """An agent on a fake node, with its HTTP endpoint."""

    def __init__(self, node: FakeNode, source: Path) -> None:
        self.api = Api()
        metrics = AgentMetrics()
        reconciler = Node(node.layout, Systemd(node.host), source, metrics.probe)  # type: ignore[arg-type]
        self.loop = Loop(self.api, reconciler)  # type: ignore[arg-type]
        metrics.watch(self.loop, node.layout)
        self.runner = web.AppRunner(application(self.loop, metrics))

    async def scrape(self) -> dict[str, float]:
        """Return the values by name and labels."""
        url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/metrics"
        async with ClientSession() as session, session.get(url) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await answer.text()
        return {
            name + "".join(f" {key}={label}" for key, label in sorted(labels.items())): value
            for family in text_string_to_metric_families(text)
            for name, labels, value, *_ in family.samples
        }

    async def __aenter__(self) -> Agent:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.task = asyncio.create_task(self.loop.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.runner.cleanup()


@pytest.fixture
async def host(node: FakeNode) -> FakeNode:
    """A node with a kubelet on containerd, whose switch unit runs the real switch."""
    await node.boot("FlagsFile")
    (node.layout.state / "switch").mkdir(parents=True)

    async def run_switch() -> tuple[int, bytes, bytes]:
        try:
            await apply(node.context)
        except NoderuntimeError as error:
            return 1, b"", str(error).encode()
        return 0, b"", b""

    node.host.oneshots[layout.SWITCH] = run_switch
    return node


def bundle(directory: Path, digest: str) -> Path:
    directory.mkdir()
    (directory / "BUNDLE").write_text(digest)
    return directory


async def test_scrape_before_the_first_reconciliation_is_complete(host: FakeNode, tmp_path: Path) -> None:
    agent = Agent(host, bundle(tmp_path / "v1", DIGEST))
    await agent.runner.setup()
    await web.TCPSite(agent.runner, "127.0.0.1", 0).start()
    found = await agent.scrape()
    await agent.runner.cleanup()
    assert {value for name, value in found.items() if name.startswith("noderuntime_agent_phase")} == {0}
    assert found["noderuntime_agent_report_timestamp_seconds"] == 0
    assert found["noderuntime_agent_switch_timestamp_seconds"] == 0


async def test_ready_node_has_phase_report_and_canaries(host: FakeNode, tmp_path: Path) -> None:
    began = time.time()
    async with Agent(host, bundle(tmp_path / "v1", DIGEST)) as agent:
        await agent.api.reported("Ready")
        found = await agent.scrape()
    assert found["noderuntime_agent_phase phase=Ready"] == 1
    assert found["noderuntime_agent_phase phase=Failed"] == 0
    assert found["noderuntime_agent_report_timestamp_seconds"] >= began
    assert found["noderuntime_agent_canary_duration_seconds_count handler=gvisor"] == 1
    assert found["noderuntime_agent_canary_success_timestamp_seconds handler=runc"] >= began
    assert found["noderuntime_agent_canary_failures_total handler=runc"] == 0
    assert [name for name in found if "switch_result outcome=Switched reason=" in name]
    assert found["noderuntime_agent_switch_timestamp_seconds"] >= began - 1
    serving = [name for name in found if "role=serving" in name]
    assert len(serving) == 1


async def test_failed_canary_is_counted_and_no_success(host: FakeNode, tmp_path: Path) -> None:
    host.host.breaks[DIGEST] = {"gvisor": "runsc: cannot open /dev/kvm"}
    async with Agent(host, bundle(tmp_path / "v1", DIGEST)) as agent:
        await agent.api.reported("Degraded", "Failed")
        found = await agent.scrape()
    assert found["noderuntime_agent_canary_failures_total handler=gvisor"] == 2
    assert "noderuntime_agent_canary_success_timestamp_seconds handler=gvisor" not in found


async def test_rolled_back_version_is_a_failed_release(host: FakeNode, tmp_path: Path) -> None:
    async with Agent(host, bundle(tmp_path / "v1", DIGEST)) as agent:
        await agent.api.reported("Ready")
    host.host.exits[NEXT] = "no ledger today"
    async with Agent(host, bundle(tmp_path / "v2", NEXT)) as agent:
        await agent.api.reported("Degraded")
        found = await agent.scrape()
    (failed,) = [name for name in found if "role=failed" in name]
    assert "reason=UpgradeRolledBack" in failed
    assert found["noderuntime_agent_switch_result outcome=Failed reason=UpgradeRolledBack"] == 1
    assert found["noderuntime_agent_switch_failures"] == 1
    assert found["noderuntime_agent_phase phase=Degraded"] == 1


async def test_unreadable_releases_do_not_hide_the_other_metrics(host: FakeNode, tmp_path: Path) -> None:
    async with Agent(host, bundle(tmp_path / "v1", DIGEST)) as agent:
        await agent.api.reported("Ready")
        host.layout.releases.write_text("{")
        found = await agent.scrape()
    assert found["noderuntime_agent_phase phase=Ready"] == 1
    assert not [name for name in found if "release_info" in name]
