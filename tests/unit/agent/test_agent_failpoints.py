"""The process of the switch dies, or the disk is full, at every step of every transaction."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from failpoints import (
    ONE,
    REVERT,
    ROLLBACK,
    STARTED,
    SWITCH,
    TWO,
    UNINSTALL,
    UPGRADE,
    WAYS,
    Killed,
    apply_again,
    boot,
    check_one_runtime,
    check_serves,
    expire,
    full_disk_at,
    killed_before,
    places,
)
from fakeinstances import serve
from fakenode import SHORT, SPEC, FakeNode
from test_agent_loop import running

from noderuntime.agent import layout
from noderuntime.agent.loop import Loop
from noderuntime.agent.node import Node
from noderuntime.agent.switch import release
from noderuntime.agent.switch.fallback import fallback
from noderuntime.agent.switch.revert import revert
from noderuntime.agent.switch.run import NotUpgraded, apply
from noderuntime.agent.systemd import Systemd
from noderuntime.core.backoff import Backoff
from noderuntime.core.errors import NoderuntimeError

LAST_ERROR = "the ledger is upside down"
REMOVED = SPEC.model_copy(update={"state": "Removed"})


@pytest.fixture
async def fresh(node: FakeNode) -> tuple[FakeNode, dict[str, str]]:
    """A node on which version one is to be switched on, and its kubelet's files."""
    await node.boot("FlagsFile")
    before = node.files()
    node.install(digest=ONE)
    return node, before


@pytest.mark.parametrize("way", ["boot", "again"])
@pytest.mark.parametrize("place", places(UPGRADE))
async def test_upgrade_killed_at_a_step_is_completed(served: FakeNode, place: int, way: str) -> None:
    context, begun = killed_before(served, place)
    with pytest.raises(Killed):
        await apply(context)
    assert begun == UPGRADE[: place + 1]
    await WAYS[way](served)
    await check_serves(served, TWO)


@pytest.mark.parametrize("place", places(UPGRADE))
async def test_timer_ends_an_upgrade_whose_switch_was_killed(served: FakeNode, place: int) -> None:
    context, _ = killed_before(served, place)
    with pytest.raises(Killed):
        await apply(context)
    await expire(served)
    await check_serves(served, TWO if place > UPGRADE.index("record") else ONE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", places(ROLLBACK))
async def test_rollback_killed_at_a_step_is_completed(served: FakeNode, place: int, way: str) -> None:
    served.host.exits[TWO] = LAST_ERROR
    context, begun = killed_before(served, STARTED + 1 + place)
    with pytest.raises(Killed):
        await apply(context)
    assert begun == UPGRADE[: STARTED + 1] + ROLLBACK[: place + 1]
    await WAYS[way](served)
    await apply_again(served)
    await check_serves(served, ONE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", places(ROLLBACK))
async def test_fallback_killed_at_a_step_is_completed(served: FakeNode, place: int, way: str) -> None:
    await apply(served.context)
    served.host.log = f"noderuntime: {LAST_ERROR}"
    await served.host.crash()
    context, begun = killed_before(served, place)
    with pytest.raises(Killed):
        await fallback(context)
    assert begun == ROLLBACK[: place + 1]
    served.host.exits[TWO] = LAST_ERROR
    if place == 0:
        return  # nothing was begun: systemd starts the fallback again when the daemon fails again
    await WAYS[way](served)
    await apply_again(served)
    await check_serves(served, ONE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", places(SWITCH, writes=1))
async def test_switch_killed_at_a_step_ends_in_one_runtime(
    fresh: tuple[FakeNode, dict[str, str]], place: int, way: str
) -> None:
    node, before = fresh
    context, _ = killed_before(node, place)
    with pytest.raises(Killed):
        await apply(context)
    await WAYS[way](node)
    await check_one_runtime(node, before)
    if way == "again":
        assert node.kubelet_is_switched
    await apply_again(node)
    assert node.kubelet_is_switched


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", places(REVERT, writes=1))
async def test_switch_killed_in_its_rollback_ends_in_one_runtime(
    fresh: tuple[FakeNode, dict[str, str]], place: int, way: str
) -> None:
    node, before = fresh
    node.install(SHORT, digest=ONE)
    node.host.kubelet_fails_on_noderuntime = True
    node.hurry()
    taken = len(places(SWITCH, writes=1)) - len(SWITCH[SWITCH.index("_await_kubelet") + 1 :])
    context, _ = killed_before(node, taken + place)
    with pytest.raises(Killed):
        await apply(context)
    await WAYS[way](node)
    await check_one_runtime(node, before)
    assert not node.kubelet_is_switched


@pytest.mark.parametrize("way", ["boot", "timer"])
@pytest.mark.parametrize("place", places(REVERT, writes=1))
async def test_revert_killed_at_a_step_ends_in_one_runtime(
    fresh: tuple[FakeNode, dict[str, str]], place: int, way: str
) -> None:
    node, before = fresh
    await apply(node.context)
    context, _ = killed_before(node, place)
    with pytest.raises(Killed):
        await revert(context, expired=False)
    await WAYS[way](node)
    await check_one_runtime(node, before)


@pytest.mark.parametrize("place", places(UNINSTALL, REVERT, writes=1))
async def test_uninstallation_killed_at_a_step_is_repeated(
    fresh: tuple[FakeNode, dict[str, str]], place: int
) -> None:
    node, before = fresh
    await apply(node.context)
    node.host.daemon.add("dead", ready=False)
    node.install(REMOVED, digest=ONE)
    context, begun = killed_before(node, place)
    with pytest.raises(Killed):
        await apply(context)
    assert len(begun) == place + 1
    node.install(REMOVED, digest=ONE)
    assert await apply(node.context) is None
    assert node.files() == before
    assert node.layout.is_empty()
    assert node.host.daemon.sandboxes == {}


@pytest.mark.parametrize("step", UPGRADE)
async def test_full_disk_at_a_step_of_an_upgrade_leaves_one_version(served: FakeNode, step: str) -> None:
    context = full_disk_at(served, step)
    served.context, healthy = context, served.context
    await apply_again(served)
    assert served.host.version in (ONE, TWO)
    assert layout.SERVICE in served.host.active
    served.context = healthy
    await boot(served)
    # A version that was started, and not proven, is not tried again by itself.
    await check_serves(served, ONE if step in ("start", "prove") else TWO)


@pytest.mark.parametrize("step", ROLLBACK)
async def test_full_disk_in_a_rollback_leaves_the_old_version(served: FakeNode, step: str) -> None:
    served.host.exits[TWO] = LAST_ERROR
    served.context, healthy = full_disk_at(served, step), served.context
    await apply_again(served)
    served.context = healthy
    await apply_again(served)
    await check_serves(served, ONE)


@pytest.mark.parametrize("step", UPGRADE)
async def test_full_disk_blames_no_version_that_was_proven(served: FakeNode, step: str) -> None:
    served.context, healthy = full_disk_at(served, step), served.context
    await apply_again(served)
    served.context = healthy
    await expire(served)  # what systemd starts when the switch failed
    failed = release.load(served.layout).failed
    # A version that was started, and not proven, is not tried again by itself.
    assert (failed is not None) is (step in ("start", "prove"))
    await apply_again(served)
    await check_serves(served, ONE if failed else TWO)


@pytest.mark.parametrize("place", places(UPGRADE)[2:])
async def test_damaged_journal_of_an_upgrade_names_the_remedy(served: FakeNode, place: int) -> None:
    context, _ = killed_before(served, place)
    with pytest.raises(Killed):
        await apply(context)
    served.layout.upgrade.write_text("{")
    with pytest.raises(NoderuntimeError, match=rf"{served.layout.upgrade}.*remove this file"):
        await apply(served.context)
    served.layout.upgrade.unlink()
    await apply(served.context)
    await served.host.run(["systemctl", "stop", layout.REVERT_TIMER], timeout=1)  # it does nothing any more
    await check_serves(served, TWO)


async def test_full_disk_is_not_the_versions_fault(served: FakeNode) -> None:
    with pytest.raises(NotUpgraded, match=f"version {TWO} was not started: .*the disk is full") as refused:
        await apply(full_disk_at(served, "copy_databases", "mark", "remember"))
    assert refused.value.reason == "UpgradeRefused"
    await check_serves(served, ONE)
    await apply(served.context)
    await check_serves(served, TWO)


async def test_rollback_that_cannot_restore_files_is_repeated(served: FakeNode) -> None:
    served.host.exits[TWO] = LAST_ERROR
    with pytest.raises(NoderuntimeError):
        await apply(full_disk_at(served, "restore_files"))
    assert served.layout.upgrade.exists()
    with pytest.raises(NotUpgraded, match=LAST_ERROR):
        await apply(served.context)
    await check_serves(served, ONE)


@pytest.mark.parametrize("step", SWITCH)
async def test_api_server_away_from_a_step_on_does_no_harm(node: FakeNode, tmp_path: Path, step: str) -> None:
    async with serve(tmp_path) as (fake, api):
        fake.body = {"metadata": {"name": "n1", "generation": 1}, "spec": SPEC.model_dump(by_alias=True)}

        def on_step(name: str) -> None:
            if name == step:
                fake.refuse = 503
                fake.events.put_nowait({})  # the watch ends

        await node.boot("FlagsFile")
        node.run_switch_unit()
        node.context = replace(node.context, on_step=on_step)
        (tmp_path / "BUNDLE").write_text(ONE)
        reconciler = Node(node.layout, Systemd(node.host), tmp_path)  # type: ignore[arg-type]
        loop = Loop(api, reconciler, Backoff(0.01, 0.02))
        async with running(loop):
            while loop.state is None:
                await asyncio.sleep(0.01)
            assert (loop.state.phase, node.kubelet_is_switched) == ("Ready", True)
            assert [patch["phase"] for patch in fake.patches] == ["Installing", "Switching"]
            fake.refuse = 0
            while len(fake.patches) < 3:
                await asyncio.sleep(0.01)
        assert fake.patches[-1]["phase"] == "Ready"


@pytest.mark.parametrize("step", SWITCH)
async def test_full_disk_at_a_step_of_a_switch_leaves_one_runtime(
    fresh: tuple[FakeNode, dict[str, str]], step: str
) -> None:
    node, before = fresh
    node.context, healthy = full_disk_at(node, step), node.context
    await apply_again(node)
    node.context = healthy
    await apply_again(node)
    await check_one_runtime(node, before)
    assert node.kubelet_is_switched
