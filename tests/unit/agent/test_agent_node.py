"""Turns of the agent on a played node whose unit runs the real switch."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakenode import SPEC, FakeNode

from noderuntime.agent import layout
from noderuntime.agent.instance import Instance, InstanceSpec
from noderuntime.agent.node import Node, retry_after
from noderuntime.agent.report import NodeState
from noderuntime.agent.switch.run import apply
from noderuntime.agent.systemd import Systemd
from noderuntime.core.errors import NoderuntimeError

DIGEST = "e" * 16


@pytest.fixture
async def agent(node: FakeNode, tmp_path: Path) -> Node:
    await node.boot("FlagsFile")
    (tmp_path / "BUNDLE").write_text(DIGEST)
    (node.layout.state / "switch").mkdir(parents=True)

    async def run_switch() -> tuple[int, bytes, bytes]:
        try:
            await apply(node.context)
        except NoderuntimeError as error:
            return 1, b"", str(error).encode()
        return 0, b"", b""

    node.host.oneshots[layout.SWITCH] = run_switch
    return Node(node.layout, Systemd(node.host), tmp_path)  # type: ignore[arg-type]


async def turn(agent: Node, spec: InstanceSpec = SPEC) -> tuple[NodeState, list[str]]:
    told: list[str] = []

    async def tell(state: NodeState) -> None:
        told.append(state.phase)

    return await agent.turn(Instance(generation=1, spec=spec, status={}), tell), told


async def test_first_turn_installs_switches_and_proves(node: FakeNode, agent: Node) -> None:
    state, told = await turn(agent)
    assert told == ["Installing", "Switching"]
    assert (state.phase, state.kubelet, state.configured_by) == ("Ready", "Noderuntime", "FlagsFile")
    assert (state.digest, state.version, state.upstream_socket) == (
        DIGEST, "9.9", "/run/containerd/containerd.sock",
    )  # fmt: skip
    assert {one.name: one.state for one in state.handlers} == {"runc": "Ready", "gvisor": "Ready"}
    assert node.kubelet_is_ours


async def test_second_turn_writes_and_starts_nothing(node: FakeNode, agent: Node) -> None:
    await turn(agent)
    calls = len(node.host.calls)
    state, told = await turn(agent)
    assert state.phase == "Ready"
    assert told == []
    assert len(node.host.calls) == calls


@pytest.mark.parametrize("name", ["noderuntime.service", "noderuntime-switch-revert.timer"])
async def test_unit_changed_by_hand_is_mended(node: FakeNode, agent: Node, name: str) -> None:
    await turn(agent)
    path = node.layout.units / name
    before = path.read_text()
    path.write_text("[Service]\n")
    state, _ = await turn(agent)
    assert state.phase == "Ready"
    assert path.read_text() == before
    assert node.host.restarts.count("kubelet.service") == 1


async def test_config_changed_by_hand_is_mended(node: FakeNode, agent: Node) -> None:
    await turn(agent)
    before = node.layout.config.read_text()
    node.layout.config.write_text("nonsense")
    await turn(agent)
    assert node.layout.config.read_text() == before


async def test_another_handler_restarts_the_daemon_and_not_the_kubelet(node: FakeNode, agent: Node) -> None:
    await turn(agent)
    state, _ = await turn(agent, SPEC.model_copy(update={"handlers": SPEC.handlers[:1]}))
    assert [one.name for one in state.handlers] == ["runc"]
    assert node.host.restarts.count(layout.SERVICE) == 2
    assert node.host.restarts.count("kubelet.service") == 1


async def test_broken_handler_is_told_in_its_tools_words(node: FakeNode, agent: Node) -> None:
    await turn(agent)
    node.host.ours.broken["gvisor"] = "runsc: cannot open /dev/kvm"
    state, _ = await turn(agent)
    assert (state.phase, state.reason) == ("Degraded", "HandlerBroken")
    assert state.message == "gvisor: runsc: cannot open /dev/kvm"
    assert {one.name: one.state for one in state.handlers} == {"runc": "Ready", "gvisor": "Broken"}


async def test_damaged_bundle_is_told_by_what_it_breaks_and_mended_after(
    node: FakeNode, agent: Node, tmp_path: Path
) -> None:
    await turn(agent)
    damaged = node.layout.current / "BUNDLE"
    damaged.unlink()
    node.host.ours.broken["gvisor"] = "runsc: no such file"
    state, _ = await turn(agent)
    assert state.reason == "HandlerBroken"
    assert not damaged.exists()
    node.host.ours.broken.clear()
    state, _ = await turn(agent)
    assert state.phase == "Ready"
    assert damaged.read_text() == DIGEST


async def test_failed_switch_is_reported_and_not_repeated_at_once(node: FakeNode, agent: Node) -> None:
    node.host.kubelet_refuses_us = True
    state, _ = await turn(agent)
    assert (state.phase, state.reason, state.kubelet) == ("Failed", "SwitchReverted", "Upstream")
    restarts = len(node.host.restarts)
    state, told = await turn(agent)
    assert (state.phase, told) == ("Failed", [])
    assert len(node.host.restarts) == restarts


async def test_daemon_that_was_stopped_is_started_again(node: FakeNode, agent: Node) -> None:
    await turn(agent)
    await node.host.run(["systemctl", "stop", layout.SERVICE], timeout=1)
    agent.restart_seconds = 0.0
    state, _ = await turn(agent)
    assert (state.phase, state.reason) == ("Failed", "RuntimeDown")
    state, _ = await turn(agent)
    assert state.phase == "Ready"


async def test_removal_waits_for_pods_and_then_leaves_nothing(node: FakeNode, agent: Node) -> None:
    await turn(agent)
    pod = node.host.ours.add("web")
    removed = SPEC.model_copy(update={"state": "Removed"})
    state, _ = await turn(agent, removed)
    assert (state.phase, state.reason) == ("Removing", "PodsStillRunning")
    assert "default/web" in state.message
    del node.host.ours.sandboxes[pod]
    state, _ = await turn(agent, removed)
    assert state.phase == "Removed"
    assert not node.layout.opt.exists()
    state, told = await turn(agent, removed)
    assert (state.phase, told) == ("Removed", [])
    assert not node.layout.opt.exists()


async def test_mode_replace_is_refused_before_anything_is_done(node: FakeNode, agent: Node) -> None:
    kubelet = SPEC.kubelet.model_copy(update={"mode": "Replace"})
    state, _ = await turn(agent, SPEC.model_copy(update={"kubelet": kubelet}))
    assert (state.phase, state.reason) == ("Failed", "ModeNotOffered")
    assert not node.layout.opt.exists()


def test_failures_are_retried_ever_more_slowly() -> None:
    assert [retry_after(n) for n in (1, 2, 3, 100)] == [60, 120, 240, 3600]
