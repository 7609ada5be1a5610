"""The switch on a played node: every style of kubelet, forth and back, cut off anywhere."""

from __future__ import annotations

import json

import pytest
from fakenode import CONTAINERD, SPEC, FakeNode

from noderuntime.agent import layout
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import transaction
from noderuntime.agent.switch.revert import revert
from noderuntime.agent.switch.run import apply, finish
from noderuntime.agent.switch.uninstall import PodsStillRunning
from noderuntime.core.errors import FailedPrecondition, Unimplemented

STYLES = ("FlagsFile", "ConfigFile", "DropIn", "Unit", "Default")
REMOVED = SPEC.model_copy(update={"state": "Removed"})


@pytest.mark.parametrize("style", STYLES)
async def test_kubelet_is_switched_and_given_back_byte_for_byte(node: FakeNode, style: str) -> None:
    await node.boot(style)
    before = node.files()
    node.install()

    result = await apply(node.context)

    assert result
    assert result.outcome == "Switched"
    assert result.upstream_socket == CONTAINERD
    assert node.kubelet_is_ours
    assert node.host.ours.ran == ["gvisor", "runc"]
    assert node.host.ours.sandboxes == {}
    assert layout.REVERT_TIMER not in node.host.active

    assert "back on" in await revert(node.context, expired=False)
    assert node.files() == before
    assert not node.kubelet_is_ours


@pytest.mark.parametrize("style", STYLES)
async def test_second_apply_touches_nothing(node: FakeNode, style: str) -> None:
    await node.boot(style)
    node.install()
    await apply(node.context)
    files, restarts = node.files(), len(node.host.restarts)

    await apply(node.context)

    assert node.files() == files
    assert len(node.host.restarts) == restarts


@pytest.mark.parametrize("style", STYLES)
async def test_kubelet_that_does_not_come_back_gets_its_old_settings(node: FakeNode, style: str) -> None:
    await node.boot(style)
    before = node.files()
    node.install()
    node.host.kubelet_refuses_us = True

    with pytest.raises(transaction.Reverted, match="the kubelet does not run within 120 s"):
        await apply(node.context)

    assert node.files() == before
    assert node.host.pid
    result = records.load_result(node.layout.result)
    assert result
    assert (result.outcome, result.reason, result.kubelet) == ("Failed", "SwitchReverted", "Upstream")
    assert records.load_journal(node.layout.journal) is None


async def test_timer_is_armed_before_the_kubelet_is_touched(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    assert node.host.restarts == [layout.SERVICE, layout.REVERT_TIMER, "kubelet.service"]


async def test_broken_handler_does_not_hold_the_others_back(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    node.host.ours.broken["gvisor"] = "runsc: exec format error"
    result = await apply(node.context)
    assert result
    assert result.outcome == "Switched"
    assert "gvisor: runsc: exec format error" in result.message


async def test_kubelet_is_left_alone_when_no_handler_works(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    node.host.ours.broken = {"gvisor": "no runsc", "runc": "no runc"}
    with pytest.raises(FailedPrecondition, match="no handler works: gvisor: no runsc; runc: no runc"):
        await apply(node.context)
    assert node.files() == before
    assert "kubelet.service" not in node.host.restarts


async def test_switch_that_was_cut_off_before_the_restart_is_undone(node: FakeNode) -> None:
    await node.boot("ConfigFile")
    before = node.files()
    node.install()
    await apply(node.context)
    journal = records.load_journal(node.layout.journal)
    assert journal
    # As if the power had gone after the first of the two files was written.
    records.save(node.layout.journal, journal.model_copy(update={"phase": "Switching"}))
    node.write("/var/lib/kubelet/config.yaml", before["var/lib/kubelet/config.yaml"])

    await finish(node.context)

    assert node.files() == before
    assert records.load_journal(node.layout.journal) is None


async def test_switch_that_was_cut_off_by_a_reboot_is_finished_if_the_kubelet_is_well(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    journal = records.load_journal(node.layout.journal)
    assert journal
    records.save(node.layout.journal, journal.model_copy(update={"phase": "Switching"}))
    await finish(node.context)
    found = records.load_journal(node.layout.journal)
    assert found
    assert found.phase == "Switched"
    assert node.kubelet_is_ours


async def test_expired_timer_undoes_only_an_unfinished_switch(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    await apply(node.context)
    assert "finished in time" in await revert(node.context, expired=True)
    assert node.kubelet_is_ours
    journal = records.load_journal(node.layout.journal)
    assert journal
    records.save(node.layout.journal, journal.model_copy(update={"phase": "Switching"}))
    assert "back on" in await revert(node.context, expired=True)
    assert node.files() == before


async def test_endpoint_that_somebody_put_back_is_switched_again(node: FakeNode) -> None:
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


async def test_edits_made_after_the_switch_survive_the_way_back(node: FakeNode) -> None:
    await node.boot("ConfigFile")
    node.install()
    await apply(node.context)
    name = "var/lib/kubelet/config.yaml"
    node.write(f"/{name}", node.files()[name] + "maxPods: 42\n")
    await revert(node.context, expired=False)
    assert node.files()[name].endswith("maxPods: 42\n")
    assert layout.ENDPOINT not in node.files()[name]


async def test_mode_manual_serves_and_leaves_the_kubelet_alone(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install(SPEC.model_copy(update={"kubelet": SPEC.kubelet.model_copy(update={"mode": "Manual"})}))
    result = await apply(node.context)
    assert result
    assert (result.outcome, result.kubelet) == ("Manual", "Upstream")
    assert node.files() == before


async def test_mode_replace_is_refused_in_one_line(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install(SPEC.model_copy(update={"kubelet": SPEC.kubelet.model_copy(update={"mode": "Replace"})}))
    with pytest.raises(Unimplemented, match="not offered yet"):
        await apply(node.context)
    assert json.loads(node.layout.result.read_text())["reason"] == "ModeNotOffered"


async def test_upstream_that_is_not_containerd_is_refused(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    node.host.containerd.name = "cri-o"
    with pytest.raises(FailedPrecondition, match="is cri-o"):
        await apply(node.context)


async def test_removal_is_refused_while_pods_live_and_names_them(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    node.host.ours.add("web-0")
    node.host.containerd.add("ordinary")
    node.install(REMOVED)
    with pytest.raises(PodsStillRunning, match=r"still run on this node: default/web-0$"):
        await apply(node.context)
    assert node.kubelet_is_ours


async def test_removal_leaves_nothing_but_the_ordinary_pods(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    await apply(node.context)
    node.host.ours.add("dead", ready=False)
    ordinary = node.host.containerd.add("ordinary")
    pin = node.write("/run/netns/noderuntime-abc", "")
    other = node.write("/run/netns/cni-1", "")
    node.install(REMOVED)

    assert await apply(node.context) is None

    assert node.files() == before
    assert node.host.ours.sandboxes == {}
    assert ordinary in node.host.containerd.sandboxes
    assert not pin.exists()
    assert other.exists()
    for path in (node.layout.opt, node.layout.etc, node.layout.run, node.layout.state):
        assert not path.exists()
    assert node.layout.is_empty()
    assert layout.SERVICE not in node.host.active
