"""Reconciliation on a fake node whose switch unit runs the real switch."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from fakenode import SHORT, SPEC, FakeNode

from noderuntime.agent import layout
from noderuntime.agent.instance import Instance, InstanceSpec, parse, unsupported
from noderuntime.agent.node import Node, retry_after
from noderuntime.agent.report import NodeState, is_others, status
from noderuntime.agent.switch.journal import load_result, now, save
from noderuntime.agent.systemd import Systemd

DIGEST, NEXT = "e" * 16, "f" * 16


@pytest.fixture
async def agent(node: FakeNode, tmp_path: Path) -> Node:
    await node.boot("FlagsFile")
    (tmp_path / "BUNDLE").write_text(DIGEST)
    node.run_switch_unit()
    found = Node(node.layout, Systemd(node.host), tmp_path)  # type: ignore[arg-type]
    found.reprobe_seconds = 0.0
    return found


@pytest.fixture
async def next_agent(node: FakeNode, agent: Node, tmp_path: Path) -> Node:
    """The agent of the next version, on a node that the version before it serves."""
    await reconcile(agent)
    agent.release()
    source = tmp_path / "next"
    source.mkdir()
    (source / "BUNDLE").write_text(NEXT)
    return Node(node.layout, Systemd(node.host), source)  # type: ignore[arg-type]


async def no_report(_: NodeState) -> None:
    """Report nothing."""


async def reconcile(agent: Node, spec: InstanceSpec = SPEC, retry: str = "") -> tuple[NodeState, list[str]]:
    phases: list[str] = []

    async def report(state: NodeState) -> None:
        phases.append(state.phase)

    instance = Instance(generation=1, spec=spec, status={}, retry=retry)
    return await agent.reconcile(instance, report), phases


async def test_reconcile_installs_switches_and_probes(node: FakeNode, agent: Node) -> None:
    state, phases = await reconcile(agent)
    assert phases == ["Installing", "Switching"]
    assert (state.phase, state.kubelet, state.configured_by) == ("Ready", "Noderuntime", "FlagsFile")
    assert (state.digest, state.version, state.upstream_socket) == (
        DIGEST, "9.9", "/run/containerd/containerd.sock",
    )  # fmt: skip
    assert {handler.name: handler.state for handler in state.handlers} == {"runc": "Ready", "gvisor": "Ready"}
    assert node.kubelet_is_switched


async def test_state_has_the_versions_of_the_handlers(node: FakeNode, agent: Node) -> None:
    node.host.daemon.versions = {"runc": "1.3.3", "gvisor": "release-20251110.0"}
    state, _ = await reconcile(agent)
    reported = status(state, {}, now())["handlers"]
    found = {handler["name"]: handler.get("version") for handler in reported}
    assert found == {"runc": "1.3.3", "gvisor": "release-20251110.0"}


async def test_handlers_are_ready_without_known_versions(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    node.host.daemon.status_error = "the network's plugin is unknown"
    state, _ = await reconcile(agent)
    assert [(handler.state, handler.version) for handler in state.handlers] == [("Ready", None)] * 2


async def test_state_names_the_handlers_that_the_upstream_has(node: FakeNode, agent: Node) -> None:
    node.host.containerd.handlers = ("runc",)
    state, _ = await reconcile(agent)
    assert (state.phase, state.shared_handlers) == ("Ready", ("runc",))


async def test_reconcile_of_the_desired_state_changes_nothing(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    calls = len(node.host.calls)
    state, phases = await reconcile(agent)
    assert state.phase == "Ready"
    assert phases == []
    assert len(node.host.calls) == calls


async def test_restarted_agent_never_reports_the_upstream(
    node: FakeNode, agent: Node, tmp_path: Path
) -> None:
    await reconcile(agent)
    states: list[NodeState] = []

    async def report(state: NodeState) -> None:
        states.append(state)

    agent.release()
    restarted = Node(node.layout, Systemd(node.host), tmp_path)  # type: ignore[arg-type]
    state = await restarted.reconcile(Instance(generation=1, spec=SPEC, status={}), report)
    assert (state.phase, states) == ("Ready", [])

    (tmp_path / "BUNDLE").write_text("f" * 16)
    restarted.release()
    upgraded = Node(node.layout, Systemd(node.host), tmp_path)  # type: ignore[arg-type]
    await upgraded.reconcile(Instance(generation=1, spec=SPEC, status={}), report)
    assert [(state.phase, state.kubelet) for state in states] == [
        ("Installing", "Noderuntime"),
        ("Switching", "Noderuntime"),
    ]


@pytest.mark.parametrize("name", ["noderuntime.service", "noderuntime-switch.service"])
async def test_reconcile_restores_a_changed_unit(node: FakeNode, agent: Node, name: str) -> None:
    await reconcile(agent)
    path = node.layout.units / name
    before = path.read_text()
    path.write_text("[Service]\n")
    state, _ = await reconcile(agent)
    assert state.phase == "Ready"
    assert path.read_text() == before
    assert node.host.restarts.count("kubelet.service") == 1


async def test_reconcile_restores_a_changed_config(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    before = node.layout.config.read_text()
    node.layout.config.write_text("nonsense")
    await reconcile(agent)
    assert node.layout.config.read_text() == before


async def test_changed_handlers_restart_the_daemon_only(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    state, _ = await reconcile(agent, SPEC.model_copy(update={"handlers": SPEC.handlers[:1]}))
    assert (state.phase, state.message) == ("Ready", "")
    assert [handler.name for handler in state.handlers] == ["runc"]
    assert node.host.restarts.count(layout.SERVICE) == 2
    assert node.host.restarts.count("kubelet.service") == 1


async def test_broken_handler_is_reported_with_its_error(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    node.host.daemon.broken["gvisor"] = "runsc: cannot open /dev/kvm"
    state, _ = await reconcile(agent)
    assert (state.phase, state.reason) == ("Degraded", "HandlerBroken")
    assert state.message == "gvisor: runsc: cannot open /dev/kvm"
    assert {handler.name: handler.state for handler in state.handlers} == {
        "runc": "Ready",
        "gvisor": "Broken",
    }


async def test_damaged_bundle_is_repaired_after_a_failed_probe(
    node: FakeNode, agent: Node, tmp_path: Path
) -> None:
    await reconcile(agent)
    damaged = node.layout.current / "BUNDLE"
    damaged.unlink()
    node.host.daemon.broken["gvisor"] = "runsc: no such file"
    state, _ = await reconcile(agent)
    assert state.reason == "HandlerBroken"
    assert not damaged.exists()
    node.host.daemon.broken.clear()
    state, _ = await reconcile(agent)
    assert state.phase == "Ready"
    assert damaged.read_text() == DIGEST


async def test_failed_switch_is_not_retried_at_once(node: FakeNode, agent: Node) -> None:
    node.host.kubelet_fails_on_noderuntime = True
    node.hurry()
    state, _ = await reconcile(agent, SHORT)
    assert (state.phase, state.reason, state.kubelet) == ("Failed", "SwitchReverted", "Upstream")
    restarts = len(node.host.restarts)
    state, phases = await reconcile(agent, SHORT)
    assert (state.phase, phases) == ("Failed", [])
    assert len(node.host.restarts) == restarts


async def test_stopped_daemon_is_restarted(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    await node.host.run(["systemctl", "stop", layout.SERVICE], timeout=1)
    agent.restart_seconds = 0.0
    state, _ = await reconcile(agent)
    assert (state.phase, state.reason) == ("Failed", "RuntimeDown")
    state, _ = await reconcile(agent)
    assert state.phase == "Ready"


async def test_removal_waits_for_pods_and_removes_all_files(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    pod = node.host.daemon.add("web")
    removed = SPEC.model_copy(update={"state": "Removed"})
    state, _ = await reconcile(agent, removed)
    assert (state.phase, state.reason) == ("Removing", "PodsStillRunning")
    assert "default/web" in state.message
    assert await reconcile(agent, removed) == (state, [])  # nothing new to report while it waits
    del node.host.daemon.sandboxes[pod]
    state, _ = await reconcile(agent, removed)
    assert state.phase == "Removed"
    assert not node.layout.opt.exists()
    state, phases = await reconcile(agent, removed)
    assert (state.phase, phases) == ("Removed", [])
    assert not node.layout.opt.exists()


async def test_mode_replace_is_refused_before_any_change(node: FakeNode, agent: Node) -> None:
    kubelet = SPEC.kubelet.model_copy(update={"mode": "Replace"})
    state, _ = await reconcile(agent, SPEC.model_copy(update={"kubelet": kubelet}))
    assert (state.phase, state.reason) == ("Failed", "ModeNotOffered")
    assert not node.layout.opt.exists()


def test_retry_after_backs_off_exponentially() -> None:
    assert [retry_after(n) for n in (1, 2, 3, 100)] == [60, 120, 240, 3600]


async def test_next_version_is_installed_by_the_one_that_serves(node: FakeNode, next_agent: Node) -> None:
    assert node.host.version == DIGEST
    state, phases = await reconcile(next_agent)
    assert (state.phase, state.digest, phases) == ("Ready", NEXT, ["Installing", "Switching"])
    assert node.host.version == node.layout.proven.resolve().name == NEXT
    assert node.host.restarts.count("kubelet.service") == 1


async def test_failed_version_is_reported_and_the_old_one_serves(node: FakeNode, next_agent: Node) -> None:
    node.host.exits[NEXT] = "no ledger today"
    state, _ = await reconcile(next_agent)
    assert (state.phase, state.reason, state.digest) == ("Degraded", "UpgradeRolledBack", DIGEST)
    assert (state.kubelet, state.version) == ("Noderuntime", "9.9")
    assert f"version {NEXT} was rolled back" in state.message
    assert "no ledger today; tried again when the annotation noderuntime.dev/retry changes" in state.message
    assert {handler.state for handler in state.handlers} == {"Ready"}


async def test_failed_version_is_tried_again_on_request_only(node: FakeNode, next_agent: Node) -> None:
    node.host.exits[NEXT] = "no ledger today"
    await reconcile(next_agent)
    node.host.exits.clear()
    calls = len(node.host.calls)
    state, _ = await reconcile(next_agent)
    assert (state.reason, state.digest) == ("UpgradeRolledBack", DIGEST)
    assert len(node.host.calls) == calls
    state, _ = await reconcile(next_agent, retry="2026-11-26")
    assert (state.phase, state.digest) == ("Ready", NEXT)


async def test_copies_that_fail_are_reported_once(node: FakeNode, next_agent: Node) -> None:
    obstacle = node.layout.versions / f".{NEXT}.partial"
    obstacle.write_text("in the way")
    found = [await reconcile(next_agent) for _ in range(3)]
    assert [phases for _, phases in found] == [["Installing"], [], []]
    assert len({state.outline() for state, _ in found}) == 1
    obstacle.unlink()
    state, phases = await reconcile(next_agent)
    assert (state.phase, state.digest, phases) == ("Ready", NEXT, ["Switching"])


async def test_spec_that_is_not_supported_is_reported(node: FakeNode, agent: Node) -> None:
    body = {"metadata": {"generation": 2}, "spec": {"handlers": [{"name": "kata", "type": "Kata"}]}}
    new = unsupported(body, "instance: spec.handlers.0.type")
    state = await agent.reconcile(new, no_report)
    assert (state.phase, state.reason, state.generation) == ("Failed", "SpecNotSupported", 2)
    assert state.message == "instance: spec.handlers.0.type"
    assert node.layout.is_empty()

    await reconcile(agent)
    calls = len(node.host.calls)
    known = new.model_copy(update={"status": {"handlers": [{"name": "runc"}, {"name": "gvisor"}]}})
    state = await agent.reconcile(known, no_report)
    assert (state.phase, state.reason, state.kubelet) == ("Degraded", "SpecNotSupported", "Noderuntime")
    assert {handler.name: handler.state for handler in state.handlers} == {"runc": "Ready", "gvisor": "Ready"}
    assert len(node.host.calls) == calls


async def test_spec_that_is_not_supported_can_be_another_images(
    node: FakeNode, agent: Node, tmp_path: Path
) -> None:
    other = Node(node.layout, Systemd(node.host), tmp_path, image="image:2")  # type: ignore[arg-type]
    body = {"spec": {"image": "image:1", "handlers": [{"name": "kata", "type": "Kata"}]}}
    state = await other.reconcile(unsupported(body, "x"), no_report)
    assert (state.phase, state.reason, state.generation) == ("Pending", "OtherImage", None)


async def test_failed_copy_is_reported_and_the_old_version_serves(node: FakeNode, next_agent: Node) -> None:
    (node.layout.versions / f".{NEXT}.partial").write_text("in the way")
    state, _ = await reconcile(next_agent)
    assert (state.phase, state.reason, state.digest) == ("Degraded", "InstallFailed", DIGEST)
    assert re.search(rf"install .*/versions/{NEXT}: File exists", state.message)
    assert {handler.state for handler in state.handlers} == {"Ready"}
    assert not (node.layout.versions / NEXT).exists()


async def test_agent_does_not_touch_files_of_another_release(node: FakeNode, next_agent: Node) -> None:
    node.host.refuses[NEXT] = "conf.d/50-x.toml: unknown key"
    before = {path: path.read_bytes() for path in (node.layout.config, node.layout.units / layout.SERVICE)}
    state, _ = await reconcile(next_agent)
    assert (state.phase, state.reason, state.digest) == ("Degraded", "UpgradeRefused", DIGEST)
    assert re.search(r"50-x.toml: unknown key; tried again at \d\d:\d\d:\d\d UTC$", state.message)
    assert {path: path.read_bytes() for path in before} == before


async def test_refused_version_is_retried_after_the_clock_was_set_back(
    node: FakeNode, next_agent: Node
) -> None:
    node.host.refuses[NEXT] = "conf.d/50-x.toml: unknown key"
    await reconcile(next_agent)
    node.host.refuses.clear()
    result = load_result(node.layout.result)
    assert result
    save(node.layout.result, result.model_copy(update={"finished": now() + timedelta(days=300)}))
    state, _ = await reconcile(next_agent)
    assert (state.phase, state.digest) == ("Ready", NEXT)


async def test_removal_by_the_next_version_leaves_nothing(node: FakeNode, next_agent: Node) -> None:
    node.host.exits[NEXT] = "no ledger today"
    await reconcile(next_agent)
    state, _ = await reconcile(next_agent, SPEC.model_copy(update={"state": "Removed"}))
    assert state.phase == "Removed"
    assert not node.layout.opt.exists()
    assert not [path for path in node.layout.units.rglob("*noderuntime*") if path.name != "kubelet.service.d"]


async def test_node_with_an_invalid_record_is_upgraded_and_removed(node: FakeNode, next_agent: Node) -> None:
    node.layout.releases.write_text('{"serving": {"revis')
    state, _ = await reconcile(next_agent)
    assert (state.phase, state.digest) == ("Ready", NEXT)
    node.layout.releases.write_text('{"serving": {"revis')
    state, _ = await reconcile(next_agent, SPEC.model_copy(update={"state": "Removed"}))
    assert (state.phase, node.layout.is_empty()) == ("Removed", True)


async def test_second_agent_changes_nothing_until_the_first_ends(
    node: FakeNode, agent: Node, tmp_path: Path
) -> None:
    source = tmp_path / "next"
    source.mkdir()
    (source / "BUNDLE").write_text(NEXT)
    first = Node(node.layout, Systemd(node.host), tmp_path, image="image:1", pod="one/agent-a")  # type: ignore[arg-type]
    second = Node(node.layout, Systemd(node.host), source, image="image:2", pod="two/agent-b")  # type: ignore[arg-type]
    await reconcile(first)
    files, calls = node.files(), len(node.host.calls)
    for _ in range(2):
        state, phases = await reconcile(second)
        assert (state.phase, state.reason, phases) == ("Failed", "HeldByOtherAgent", [])
        assert state.message.startswith("the agent one/agent-a (image image:1) has held this node since 20")
    state, _ = await reconcile(second, SPEC.model_copy(update={"state": "Removed"}))
    assert state.reason == "HeldByOtherAgent"
    assert (node.files(), len(node.host.calls), node.host.version) == (files, calls, DIGEST)

    first.release()
    state, _ = await reconcile(second)
    assert (state.phase, state.digest) == ("Ready", NEXT)
    state, _ = await reconcile(first)
    assert "two/agent-b" in state.message
    assert node.host.version == NEXT


async def test_claim_ends_with_the_installation_and_begins_again(node: FakeNode, agent: Node) -> None:
    removed = SPEC.model_copy(update={"state": "Removed"})
    for _ in range(2):
        assert (await reconcile(agent))[0].phase == "Ready"
        assert node.layout.claim.exists()
        assert [(await reconcile(agent, removed))[0].phase for _ in range(2)] == ["Removed", "Removed"]
        assert not node.layout.etc.exists()


async def test_claim_never_writes_through_a_symlink(node: FakeNode, agent: Node) -> None:
    await reconcile(agent)
    before = node.layout.switch_config.read_bytes()
    node.layout.claim.unlink()
    node.layout.claim.symlink_to("switch.toml")
    state, _ = await reconcile(agent)
    assert (state.phase, state.reason) == ("Degraded", "InstallFailed")
    assert "agent.lock: Too many levels of symbolic links" in state.message
    assert node.layout.switch_config.read_bytes() == before


async def test_claim_of_a_killed_agent_is_free(node: FakeNode, agent: Node) -> None:
    script = "import sys, time; from pathlib import Path; from noderuntime.agent.claim import Claim\n"
    script += "print(Claim(Path(sys.argv[1]), 'one/agent-a', 'image:1').take(), flush=True); time.sleep(60)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, node.layout.claim, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"None\n"
    assert (await reconcile(agent))[0].reason == "HeldByOtherAgent"
    process.kill()
    await process.wait()
    assert (await reconcile(agent))[0].phase == "Ready"


def test_parse_reads_the_retry_annotation() -> None:
    body = {"metadata": {"generation": 1, "annotations": {"noderuntime.dev/retry": "now"}}, "spec": {}}
    assert parse(body).retry == "now"


async def test_agent_of_another_image_only_reports(node: FakeNode, agent: Node, tmp_path: Path) -> None:
    await reconcile(agent)
    calls, files = len(node.host.calls), sorted(node.layout.versions.rglob("*"))
    source = tmp_path / "early"
    source.mkdir()
    (source / "BUNDLE").write_text(NEXT)
    early = Node(node.layout, Systemd(node.host), source, image="image:2")  # type: ignore[arg-type]

    agent.release()
    state, phases = await reconcile(early, SPEC.model_copy(update={"image": "image:1"}))
    assert (state.phase, state.generation, state.digest, state.image) == ("Ready", None, DIGEST, "image:2")
    assert state.message == "the agent's image is image:2: waiting for an agent of image:1"
    assert (phases, len(node.host.calls)) == ([], calls)
    assert sorted(node.layout.versions.rglob("*")) == files

    state, phases = await reconcile(early, SPEC.model_copy(update={"image": "image:2"}))
    assert (state.phase, state.generation, state.digest) == ("Ready", 1, NEXT)


@pytest.mark.parametrize("problem", ["", "spec.kubelet.mode is unknown"], ids=["image", "spec"])
async def test_agent_that_waits_leaves_reports_to_the_holder(
    node: FakeNode, agent: Node, tmp_path: Path, problem: str
) -> None:
    holder = Node(node.layout, Systemd(node.host), tmp_path, image="image:1", pod="one/agent-a")  # type: ignore[arg-type]
    await reconcile(holder)
    other = Node(node.layout, Systemd(node.host), tmp_path, image="image:2", pod="two/agent-b")  # type: ignore[arg-type]
    wanted = SPEC.model_copy(update={"image": "image:2" if problem else "image:1"})
    instance = Instance(generation=2, spec=wanted, status={}, problem=problem)
    state = await other.reconcile(instance, no_report)
    assert (state.phase, state.reason) == ("Failed", "HeldByOtherAgent")
    assert state.generation == (2 if problem else None)
    assert "the agent one/agent-a (image image:1) has held this node since" in state.message
    assert is_others(state, {"lastHeartbeatTime": now().isoformat()}, now())

    holder.release()
    assert (await other.reconcile(instance, no_report)).reason != "HeldByOtherAgent"
    assert (await reconcile(holder))[0].phase == "Ready"


async def test_agent_of_another_image_installs_nothing(node: FakeNode, agent: Node, tmp_path: Path) -> None:
    early = Node(node.layout, Systemd(node.host), tmp_path, image="image:2")  # type: ignore[arg-type]
    state, phases = await reconcile(early, SPEC.model_copy(update={"image": "image:1"}))
    assert (state.phase, state.reason, phases) == ("Pending", "OtherImage", [])
    assert node.layout.is_empty()


async def test_agent_of_another_image_carries_out_a_removal(
    node: FakeNode, agent: Node, tmp_path: Path
) -> None:
    await reconcile(agent)
    agent.release()
    other = Node(node.layout, Systemd(node.host), tmp_path, image="image:2")  # type: ignore[arg-type]
    leaving = SPEC.model_copy(update={"image": "image:1", "state": "Removed"})
    assert (await reconcile(other, leaving))[0].phase == "Removed"
    assert not node.kubelet_is_switched
