"""Upgrades on a fake node: good ones, every kind of bad one, and an interruption before every step."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from fakenode import SPEC, FakeNode

from noderuntime.agent import layout
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import release, transaction, upgrade, upgrade_steps
from noderuntime.agent.switch.context import Context
from noderuntime.agent.switch.fallback import fallback
from noderuntime.agent.switch.journal import Result
from noderuntime.agent.switch.revert import revert
from noderuntime.agent.switch.run import NotUpgraded, apply
from noderuntime.core.errors import NoderuntimeError

ONE, TWO, THREE = "d" * 16, "e" * 16, "f" * 16
POD = "a" * 64
LAST_WORDS = "the ledger is upside down"


class Killed(BaseException):
    """The process that ran a transaction is gone."""


@pytest.fixture
async def served(node: FakeNode) -> FakeNode:
    """A node whose kubelet uses version one, with a pod, and version two staged."""
    await node.boot("FlagsFile")
    node.install(digest=ONE)
    await apply(node.context)
    pod = node.host.daemon.add("web")
    process = node.layout.proc / "900"
    process.mkdir()
    (process / "cmdline").write_bytes(b"conmon\0-c\0" + pod.encode() + b"\0")
    node.install(digest=TWO)
    return node


def result(node: FakeNode) -> Result:
    found = records.load_result(node.layout.result)
    assert found
    return found


async def check_serves(node: FakeNode, digest: str) -> None:
    """Check that all traces of a transaction are gone, and that one release serves the kubelet, whole."""
    known = release.load(node.layout)
    assert known.serving
    assert known.serving.digest == node.host.version == node.layout.proven.resolve().name == digest
    assert release.is_installed(node.layout, known.serving)
    assert f"# of version {digest}" in (node.layout.units / layout.SWITCH).read_text()
    assert not node.layout.upgrade.exists()
    assert layout.REVERT_TIMER not in node.host.active
    assert layout.SERVICE in node.host.active
    async with asyncio.timeout(10):  # the kubelet connects again by itself
        while not node.kubelet_is_switched:
            await asyncio.sleep(0.01)


async def test_upgrade_serves_and_leaves_the_kubelet_alone(served: FakeNode) -> None:
    kubelet = served.host.pid
    found = await apply(served.context)
    assert found
    assert (found.outcome, found.kubelet) == ("Switched", "Noderuntime")
    await check_serves(served, TWO)
    assert served.host.pid == kubelet
    assert served.layout.previous.resolve().name == ONE


async def test_downgrade_is_an_upgrade(served: FakeNode) -> None:
    await apply(served.context)
    served.install(digest=ONE)
    await apply(served.context)
    await check_serves(served, ONE)
    assert served.layout.previous.resolve().name == TWO


async def test_changed_config_of_one_version_is_an_upgrade(served: FakeNode) -> None:
    served.install(SPEC.model_copy(update={"handlers": SPEC.handlers[:1]}), digest=ONE)
    await apply(served.context)
    await check_serves(served, ONE)
    assert "gvisor" not in served.layout.config.read_text()
    assert served.layout.previous.resolve().name == ONE


async def test_staged_release_does_not_touch_what_runs(served: FakeNode) -> None:
    assert served.host.version == ONE
    assert TWO not in served.layout.config.read_text()
    await check_serves(served, ONE)


async def test_version_that_refuses_the_node_is_never_started(served: FakeNode) -> None:
    served.host.refuses[TWO] = "conf.d/50-x.toml: server.old_key: unknown"
    restarts = len(served.host.restarts)
    with pytest.raises(NotUpgraded, match=r"was not started: .*server\.old_key: unknown"):
        await apply(served.context)
    assert len(served.host.restarts) == restarts
    assert (result(served).reason, result(served).kubelet) == ("UpgradeRefused", "Noderuntime")
    await check_serves(served, ONE)
    served.host.refuses.clear()
    await apply(served.context)
    await check_serves(served, TWO)


async def test_daemon_that_exits_is_rolled_back_with_its_words(served: FakeNode) -> None:
    served.host.exits[TWO] = LAST_WORDS
    with pytest.raises(NotUpgraded, match=f"{TWO} was rolled back: .* does not start: .*{LAST_WORDS}"):
        await apply(served.context)
    await check_serves(served, ONE)
    assert (result(served).reason, result(served).kubelet) == ("UpgradeRolledBack", "Noderuntime")


async def test_daemon_that_hangs_is_rolled_back(served: FakeNode) -> None:
    served.host.hangs.add(TWO)
    served.hurry()
    with pytest.raises(NotUpgraded, match="was not ready 20 s after its start"):
        await apply(served.context)
    await check_serves(served, ONE)


async def test_handler_that_worked_before_must_work(served: FakeNode) -> None:
    served.host.breaks[TWO] = {"gvisor": "runsc: exec format error"}
    served.host.breaks[ONE] = {}
    with pytest.raises(NotUpgraded, match="handlers that worked before fail: gvisor: runsc: exec format"):
        await apply(served.context)
    await check_serves(served, ONE)


async def test_handler_that_failed_before_prevents_no_upgrade(served: FakeNode) -> None:
    served.host.daemon.broken = {"gvisor": "no runsc"}
    found = await apply(served.context)
    assert found
    assert "gvisor: no runsc" in found.message
    await check_serves(served, TWO)


async def test_version_that_loses_a_running_pod_is_rolled_back(served: FakeNode) -> None:
    served.host.loses.add(TWO)
    with pytest.raises(NotUpgraded, match="that run are not listed: noderuntime-"):
        await apply(served.context)
    await check_serves(served, ONE)


async def test_pod_that_ended_meanwhile_is_not_lost(served: FakeNode) -> None:
    (served.layout.proc / "900/cmdline").unlink()
    served.host.loses.add(TWO)
    await apply(served.context)
    await check_serves(served, TWO)


async def test_failed_release_is_tried_again_on_request_only(served: FakeNode) -> None:
    served.host.exits[TWO] = LAST_WORDS
    with pytest.raises(NotUpgraded):
        await apply(served.context)
    served.host.exits.clear()
    restarts = len(served.host.restarts)
    with pytest.raises(NotUpgraded, match=LAST_WORDS):
        await apply(served.context)
    assert len(served.host.restarts) == restarts
    served.install(digest=TWO, retry="please")
    await apply(served.context)
    await check_serves(served, TWO)


def ledger(node: FakeNode, script: str) -> None:
    with closing(sqlite3.connect(node.layout.state / "ledger.db")) as connection:
        connection.executescript(script)


def written(node: FakeNode) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(node.layout.state / "ledger.db")) as connection:
        return connection.execute("SELECT by FROM pods ORDER BY by").fetchall()


@pytest.mark.parametrize(
    ("schema", "kept"),
    [("", True), ("PRAGMA user_version = 5;", True), ("PRAGMA application_id = 5;", False)],
)
async def test_rollback_restores_a_ledger_that_the_old_version_cannot_use(
    served: FakeNode, schema: str, kept: bool
) -> None:
    ledger(served, "CREATE TABLE pods (by TEXT); INSERT INTO pods VALUES ('one'); PRAGMA user_version = 4;")
    served.host.breaks[TWO] = {"gvisor": "broken", "runc": "broken"}
    served.host.breaks[ONE] = {}
    served.host.on_start[TWO] = lambda: ledger(served, f"INSERT INTO pods VALUES ('two'); {schema}")
    with pytest.raises(NotUpgraded):
        await apply(served.context)
    assert written(served) == ([("one",), ("two",)] if kept else [("one",)])
    await check_serves(served, ONE)


def kill_before(node: FakeNode, number: int) -> tuple[Context, list[str]]:
    """Return a context in which the process dies before a step, and the steps that it began."""
    begun: list[str] = []

    def on_step(name: str) -> None:
        begun.append(name)
        if len(begun) == number + 1:
            raise Killed

    return replace(node.context, on_step=on_step), begun


GOOD = len(upgrade_steps.UPGRADE)
STARTED = upgrade_steps.UPGRADE.index(upgrade_steps.start)
BAD = STARTED + 1 + len(upgrade_steps.ROLLBACK)


@pytest.mark.parametrize("number", range(GOOD))
async def test_upgrade_interrupted_by_a_reboot_is_completed(served: FakeNode, number: int) -> None:
    context, begun = kill_before(served, number)
    with pytest.raises(Killed):
        await apply(context)
    assert begun[-1] == upgrade_steps.UPGRADE[number].__name__
    await served.host.reboot()
    await apply(served.context)
    await check_serves(served, TWO)


@pytest.mark.parametrize("number", range(GOOD))
async def test_timer_ends_an_upgrade_whose_switch_was_killed(served: FakeNode, number: int) -> None:
    context, _ = kill_before(served, number)
    with pytest.raises(Killed):
        await apply(context)
    await revert(served.context, expired=True)
    await check_serves(served, TWO if number > upgrade_steps.UPGRADE.index(upgrade_steps.record) else ONE)


@pytest.mark.parametrize("how", ["timer", "boot"])
@pytest.mark.parametrize("number", range(STARTED, BAD))
async def test_rollback_interrupted_at_a_step_is_completed(served: FakeNode, number: int, how: str) -> None:
    served.host.exits[TWO] = LAST_WORDS
    context, begun = kill_before(served, number)
    with pytest.raises(Killed):
        await apply(context)
    assert len(begun) == number + 1
    if how == "timer":
        await revert(served.context, expired=True)
        await check_serves(served, ONE)
    await served.host.reboot()
    with pytest.raises(NotUpgraded, match=f"{TWO} was rolled back"):
        await apply(served.context)
    await check_serves(served, ONE)


@pytest.mark.parametrize("how", ["timer", "boot"])
@pytest.mark.parametrize("number", range(len(transaction.SWITCH_STEPS) + 1))
async def test_switch_killed_at_a_step_leaves_a_kubelet_with_a_runtime(
    node: FakeNode, number: int, how: str
) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    context, _ = kill_before(node, number)
    with pytest.raises(Killed):
        await apply(context)
    if how == "boot":
        await node.host.reboot()
        await apply(node.context)
        assert node.kubelet_is_switched
        return
    await revert(node.context, expired=True)
    if node.kubelet_is_switched:
        assert records.load_journal(node.layout.journal)
    else:
        assert node.files() == before


def full_disk_at(node: FakeNode, *steps: str) -> Context:
    """Return a context in which the disk is full when these steps begin."""

    def on_step(name: str) -> None:
        if name in steps:
            raise OSError(errno.ENOSPC, "No space left on device")

    return replace(node.context, on_step=on_step)


async def test_full_disk_in_an_upgrade_leaves_the_old_version_serving(served: FakeNode) -> None:
    with pytest.raises(NotUpgraded, match="No space left on device"):
        await apply(full_disk_at(served, "copy_databases", "mark", "remember"))
    await check_serves(served, ONE)


async def test_rollback_that_cannot_restore_files_is_repeated(served: FakeNode) -> None:
    served.host.exits[TWO] = LAST_WORDS
    with pytest.raises(NoderuntimeError):
        await apply(full_disk_at(served, "restore_files"))
    assert served.layout.upgrade.exists()
    with pytest.raises(NotUpgraded, match=LAST_WORDS):
        await apply(served.context)
    await check_serves(served, ONE)


async def test_crash_loop_returns_to_the_release_before(served: FakeNode) -> None:
    await apply(served.context)
    served.host.words = f"noderuntime: {LAST_WORDS}"
    await served.host.crash()
    assert f"{TWO} was rolled back: the daemon ended five times" in await fallback(served.context)
    await check_serves(served, ONE)
    assert (result(served).reason, result(served).kubelet) == ("DaemonCrashLoop", "Noderuntime")
    assert LAST_WORDS in result(served).message
    with pytest.raises(NotUpgraded, match=LAST_WORDS):
        await apply(served.context)
    await check_serves(served, ONE)


async def test_crash_loop_of_a_config_can_fall_back_twice(served: FakeNode) -> None:
    await apply(served.context)
    served.install(SPEC.model_copy(update={"handlers": SPEC.handlers[:1]}), digest=TWO)
    await apply(served.context)
    assert [kept.digest for kept in release.load(served.layout).previous] == [TWO, ONE]
    for digest in (TWO, ONE):
        await served.host.crash()
        await fallback(served.context)
        await check_serves(served, digest)


async def test_crash_loop_without_pods_gives_the_kubelet_its_upstream(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    before = node.files()
    node.install()
    await apply(node.context)
    await node.host.crash()
    assert "uses unix:///run/containerd/containerd.sock again" in await fallback(node.context)
    assert node.files() == before
    assert node.host.pid
    assert (result(node).reason, result(node).kubelet) == ("DaemonFailed", "Upstream")


async def test_crash_loop_does_not_return_to_a_version_that_refuses_the_node(served: FakeNode) -> None:
    await apply(served.context)
    served.host.refuses[ONE] = "the ledger has schema 99"
    await served.host.crash()
    assert "uses unix:///run/containerd/containerd.sock again" in await fallback(served.context)
    assert served.host.version == TWO
    assert result(served).reason == "DaemonFailed"


async def test_crash_loop_with_pods_starts_the_daemon_again(node: FakeNode) -> None:
    await node.boot("FlagsFile")
    node.install()
    await apply(node.context)
    process = node.layout.proc / "900"
    process.mkdir()
    program = f"/opt/noderuntime/versions/{ONE}/bin/conmon"
    (process / "exe").symlink_to(program)
    (process / "cmdline").write_bytes(program.encode() + b"\0-c\0" + POD.encode() + b"\0")
    await node.host.crash()
    node.hurry()
    assert "no other version is on this node" in await fallback(node.context)
    await check_serves(node, ONE)


async def test_fallback_leaves_a_daemon_that_runs_alone(served: FakeNode) -> None:
    restarts = len(served.host.restarts)
    assert await fallback(served.context) == "noderuntime.service has not failed"
    assert len(served.host.restarts) == restarts


async def test_versions_that_a_rollback_needs_are_kept(served: FakeNode) -> None:
    await apply(served.context)
    assert sorted(path.name for path in served.layout.versions.iterdir()) == [ONE, TWO]
    served.install(digest=THREE)
    await apply(served.context)
    assert sorted(path.name for path in served.layout.versions.iterdir()) == [TWO, THREE]


async def test_node_of_a_version_without_records_is_upgraded(served: FakeNode) -> None:
    served.layout.releases.unlink()
    served.install(digest=TWO)
    await apply(served.context)
    await check_serves(served, TWO)
    assert [kept.digest for kept in release.load(served.layout).previous] == [ONE]


async def test_node_of_a_version_without_records_is_rolled_back(served: FakeNode) -> None:
    served.layout.releases.unlink()
    served.install(digest=TWO)
    served.host.exits[TWO] = LAST_WORDS
    with pytest.raises(NotUpgraded, match=LAST_WORDS):
        await apply(served.context)
    assert served.host.version == ONE
    assert result(served).reason != upgrade.REFUSED
    assert served.kubelet_is_switched
