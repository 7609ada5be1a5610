"""The agent's metrics, as a scrape of a node with the real agent and switch reads them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from unit.agent.fakenode import FakeNode
from unit.agent.scrapedagent import Agent, boot, bundle

DIGEST, NEXT = "e" * 16, "f" * 16


@pytest.fixture
async def host(node: FakeNode) -> FakeNode:
    """A node with a kubelet on containerd."""
    await boot(node)
    return node


async def test_scrape_before_the_first_reconciliation_is_complete(host: FakeNode, tmp_path: Path) -> None:
    agent = Agent(host, bundle(tmp_path / "v1", DIGEST))
    await agent.serve()
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
