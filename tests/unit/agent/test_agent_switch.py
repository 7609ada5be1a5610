"""The switch on a fake node: every style of kubelet, switch, revert and interruptions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakenode import CONTAINERD, SHORT, SPEC, FakeNode

from noderuntime.agent import layout
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import transaction, upstream
from noderuntime.agent.switch.pods import PodsStillRunning
from noderuntime.agent.switch.revert import revert
from noderuntime.agent.switch.run import apply, resume
from noderuntime.core.errors import FailedPrecondition, HostError, Unimplemented

STYLES = ("FlagsFile", "ConfigFile", "DropIn", "Unit", "Default")
REMOVED = SPEC.model_copy(update={"state": "Removed"})
MANUAL = SPEC.model_copy(update={"kubelet": SPEC.kubelet.model_copy(update={"mode": "Manual"})})


@pytest.mark.parametrize("style", STYLES)
async def test_revert_restores_every_byte(node: FakeNode, style: str) -> None:
    await node.boot(style)
    before = node.files()
    node.install()

    result = await apply(node.context)

    assert result
    assert result.outcome == "Switched"
    assert result.upstream_socket == CONTAINERD
    assert node.kubelet_is_switched
    assert node.host.daemon.ran == ["gvisor", "runc"]
    assert node.host.daemon.sandboxes == {}
    assert layout.REVERT_TIMER not in node.host.active

    assert f"uses unix://{CONTAINERD} again" in await revert(node.context, expired=False)
    assert node.files() == before
    assert not node.kubelet_is_switched


@pytest.mark.parametrize("style", STYLES)
async def test_apply_to_a_switched_node_changes_nothing(node: FakeNode, style: str) -> None:
    await node.boot(style)
    node.install()
    await apply(node.context)
    files, restarts = node.files(), len(node.host.restarts)

    await apply(node.context)

    assert node.files() == files
    assert len(node.host.restarts) == restarts


@pytest.mark.parametrize("style", STYLES)
async def test_apply_rolls_back_when_the_kubelet_does_not_start(node: FakeNode, style: str) -> None:
    await node.boot(style)
    before = node.files()
    node.install(SHORT)
    node.host.kubelet_fails_on_noderuntime = True
    node.hurry()

    with pytest.raises(transaction.Reverted, match="was rolled back: the kubelet is not running 20 s after"):
        await apply(node.context)

    assert node.files() == before
    assert node.host.pid
    result = records.load_result(node.layout.result)
    assert result
    assert (result.outcome, result.reason, result.kubelet) == ("Failed", "SwitchReverted", "Upstream")
    assert records.load_journal(node.layout.journal) is None


async def test_rollback_needs_no_space_for_its_journal(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install(SHORT)
    node.host.kubelet_fails_on_noderuntime = True
    node.hurry()
    saved: list[str] = []

    def on_step(name: str) -> None:
        saved.extend([name] if name == "_save" else [])
        if len(saved) == 2:
            saved.append("full")
            raise HostError("write journal", 28, "No space left on device")

    with pytest.raises(transaction.Reverted):
        await apply(replace(node.context, on_step=on_step))
    assert saved == ["_save", "_save", "full"]
    assert node.files() == before


async def test_apply_arms_the_timer_before_the_kubelet_restarts(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    assert node.host.restarts == [layout.SERVICE, layout.REVERT_TIMER, "kubelet.service"]


async def test_apply_succeeds_with_one_broken_handler(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    node.host.daemon.broken["gvisor"] = "runsc: exec format error"
    result = await apply(node.context)
    assert result
    assert result.outcome == "Switched"
    assert "gvisor: runsc: exec format error" in result.message


async def test_apply_fails_when_no_handler_works(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    node.host.daemon.broken = {"gvisor": "no runsc", "runc": "no runc"}
    with pytest.raises(FailedPrecondition, match="no handler works: gvisor: no runsc; runc: no runc"):
        await apply(node.context)
    assert node.files() == before
    assert "kubelet.service" not in node.host.restarts


async def test_resume_rolls_back_half_written_files(node: FakeNode) -> None:
    await node.boot("ConfigFile")
    before = node.files()
    node.install()
    await apply(node.context)
    journal = records.load_journal(node.layout.journal)
    assert journal
    # As after a power cut between the writes of the two files.
    records.save(node.layout.journal, journal.model_copy(update={"phase": "Switching"}))
    node.write("/var/lib/kubelet/config.yaml", before["var/lib/kubelet/config.yaml"])

    await resume(node.context)

    assert node.files() == before
    assert records.load_journal(node.layout.journal) is None


async def test_resume_commits_when_the_kubelet_is_healthy(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    journal = records.load_journal(node.layout.journal)
    assert journal
    records.save(node.layout.journal, journal.model_copy(update={"phase": "Switching"}))
    await resume(node.context)
    found = records.load_journal(node.layout.journal)
    assert found
    assert found.phase == "Switched"
    assert node.kubelet_is_switched


async def test_revert_expired_reverts_only_an_incomplete_switch(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    await apply(node.context)
    assert "completed in time" in await revert(node.context, expired=True)
    assert node.kubelet_is_switched
    journal = records.load_journal(node.layout.journal)
    assert journal
    records.save(node.layout.journal, journal.model_copy(update={"phase": "Switching"}))
    assert f"uses unix://{CONTAINERD} again" in await revert(node.context, expired=True)
    assert node.files() == before


async def test_apply_switches_again_after_a_manual_revert(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    await apply(node.context)
    name = "var/lib/kubelet/kubeadm-flags.env"
    node.write(f"/{name}", before[name])
    await apply(node.context)
    assert layout.ENDPOINT in node.files()[name]
    await revert(node.context, expired=False)
    assert node.files() == before


async def test_revert_keeps_edits_made_after_the_switch(node: FakeNode) -> None:
    await node.boot("ConfigFile")
    node.install()
    await apply(node.context)
    name = "var/lib/kubelet/config.yaml"
    node.write(f"/{name}", node.files()[name] + "maxPods: 42\n")
    await revert(node.context, expired=False)
    assert node.files()[name].endswith("maxPods: 42\n")
    assert layout.ENDPOINT not in node.files()[name]


async def test_apply_in_mode_manual_does_not_change_the_kubelet(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install(MANUAL)
    result = await apply(node.context)
    assert result
    assert (result.outcome, result.kubelet) == ("Manual", "Upstream")
    assert node.files() == before


async def test_mode_manual_is_refused_while_pods_run(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    node.host.daemon.add("web-0")
    node.install(MANUAL)
    with pytest.raises(PodsStillRunning, match=r"still run on this node: default/web-0$"):
        await apply(node.context)
    assert node.kubelet_is_switched
    assert json.loads(node.layout.result.read_text())["kubelet"] == "Noderuntime"


async def test_mode_manual_reports_a_kubelet_connected_by_hand(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    node.layout.journal.unlink()
    node.install(MANUAL)
    result = await apply(node.context)
    assert result
    assert (result.outcome, result.kubelet) == ("Manual", "Noderuntime")


async def test_apply_refuses_mode_replace(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install(SPEC.model_copy(update={"kubelet": SPEC.kubelet.model_copy(update={"mode": "Replace"})}))
    with pytest.raises(Unimplemented, match="not supported yet"):
        await apply(node.context)
    assert json.loads(node.layout.result.read_text())["reason"] == "ModeNotOffered"


async def test_apply_refuses_an_upstream_other_than_containerd(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    node.host.containerd.name = "cri-o"
    with pytest.raises(FailedPrecondition, match="is cri-o"):
        await apply(node.context)


@pytest.fixture
async def with_pods(node: FakeNode) -> FakeNode:
    """A switched node with a pod of each handler and one of containerd, which has a handler runc too."""
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    node.host.containerd.handlers = ("", "runc")
    node.host.daemon.add("web")
    node.host.daemon.add("vault", handler="gvisor")
    node.host.containerd.add("ordinary")
    return node


async def test_revert_by_hand_is_refused_while_pods_run(with_pods: FakeNode) -> None:
    files, calls = with_pods.files(), len(with_pods.host.restarts)
    with pytest.raises(PodsStillRunning) as refused:
        await revert(with_pods.context, expired=False)
    assert str(refused.value) == (
        "pods of noderuntime's handlers still run on this node: drain it first; with --force,"
        f" unix://{CONTAINERD} may start a second time: default/web;"
        " unseen by the kubelet, these run on: default/vault"
    )
    assert with_pods.kubelet_is_switched
    assert (with_pods.files(), len(with_pods.host.restarts)) == (files, calls)


async def test_forced_revert_logs_the_consequence_first(
    with_pods: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    assert "again" in await revert(with_pods.context, expired=False, force=True)
    assert not with_pods.kubelet_is_switched
    first, second = (record for record in caplog.records if record.levelname == "WARNING")
    assert "may start a second time: default/web" in first.noderuntime_values["consequence"]  # type: ignore[attr-defined]
    assert second.message == "rolling back the kubelet's settings"


async def test_revert_without_a_daemon_counts_the_monitors(with_pods: FakeNode) -> None:
    process = with_pods.layout.proc / "900"
    process.mkdir()
    program = f"/opt/noderuntime/versions/{'d' * 16}/bin/conmon"
    (process / "exe").symlink_to(program)
    (process / "cmdline").write_bytes(program.encode() + b"\0")
    with_pods.host.exits["d" * 16] = "no"
    await with_pods.host.run(["systemctl", "stop", layout.SERVICE], timeout=1)
    with pytest.raises(PodsStillRunning, match="1 containers still run, and their pods cannot be listed"):
        await revert(with_pods.context, expired=False)
    assert "again" in await revert(with_pods.context, expired=False, force=True)
    assert not with_pods.kubelet_is_switched


async def test_handlers_that_the_upstream_has_too_are_in_the_result(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    node.host.containerd.handlers = ("", "kata", "runc")
    result = await apply(node.context)
    assert result
    assert result.shared_handlers == ("runc",)
    node.host.daemon.add("web")
    node.install(MANUAL)
    with pytest.raises(PodsStillRunning):
        await apply(node.context)
    kept = records.load_result(node.layout.result)
    assert kept
    assert (kept.outcome, kept.shared_handlers) == ("Failed", ("runc",))


async def test_handlers_of_an_older_containerd_are_in_its_config(with_pods: FakeNode) -> None:
    runtime = with_pods.host.containerd
    runtime.handlers, runtime.config = (), '{"containerd": {"runtimes": {"runc": {}, "kata": {}}}}'
    socket = upstream.socket_of(with_pods.layout, f"unix://{CONTAINERD}")
    assert await upstream.handlers(socket) == {"runc", "kata"}


async def test_uninstall_is_refused_while_pods_run(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    node.host.daemon.add("web-0")
    node.host.containerd.add("ordinary")
    node.install(REMOVED)
    with pytest.raises(PodsStillRunning, match=r"still run on this node: default/web-0$"):
        await apply(node.context)
    assert node.kubelet_is_switched


async def test_uninstall_keeps_only_the_upstreams_pods(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    await apply(node.context)
    node.host.daemon.add("dead", ready=False)
    ordinary = node.host.containerd.add("ordinary")
    pin = node.write("/run/netns/noderuntime-abc", "")
    other = node.write("/run/netns/cni-1", "")
    node.install(REMOVED)

    assert await apply(node.context) is None

    assert node.files() == before
    assert node.host.daemon.sandboxes == {}
    assert ordinary in node.host.containerd.sandboxes
    assert not pin.exists()
    assert other.exists()
    for path in (node.layout.opt, node.layout.etc, node.layout.run, node.layout.state):
        assert not path.exists()
    assert node.layout.is_empty()
    assert layout.SERVICE not in node.host.active
