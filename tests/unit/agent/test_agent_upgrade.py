"""Upgrades on a fake node: good ones, and every kind of bad one."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from failpoints import ONE, TWO, UPGRADE, Killed, check_serves, killed_before
from fakenode import SPEC, FakeNode

from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import release, upgrade_steps
from noderuntime.agent.switch.fallback import fallback
from noderuntime.agent.switch.journal import Result
from noderuntime.agent.switch.run import NotUpgraded, apply

THREE = "f" * 16
POD = "a" * 64
LAST_ERROR = "the ledger is upside down"


def result(node: FakeNode) -> Result:
    found = records.load_result(node.layout.result)
    assert found
    return found


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


async def test_daemon_that_exits_is_rolled_back_with_its_error(served: FakeNode) -> None:
    served.host.exits[TWO] = LAST_ERROR
    with pytest.raises(NotUpgraded, match=f"{TWO} was rolled back: .* does not start: .*{LAST_ERROR}"):
        await apply(served.context)
    await check_serves(served, ONE)
    assert (result(served).reason, result(served).kubelet) == ("UpgradeRolledBack", "Noderuntime")


async def test_daemon_that_hangs_is_rolled_back(served: FakeNode) -> None:
    served.host.hangs.add(TWO)
    served.hurry()
    with pytest.raises(NotUpgraded, match="was not ready 12 s after its start"):
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
    served.host.exits[TWO] = LAST_ERROR
    with pytest.raises(NotUpgraded):
        await apply(served.context)
    served.host.exits.clear()
    restarts = len(served.host.restarts)
    with pytest.raises(NotUpgraded, match=LAST_ERROR):
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


async def test_crash_loop_returns_to_the_release_before(served: FakeNode) -> None:
    await apply(served.context)
    served.host.log = f"noderuntime: {LAST_ERROR}"
    await served.host.crash()
    assert f"{TWO} was rolled back: the daemon ended five times" in await fallback(served.context)
    await check_serves(served, ONE)
    assert (result(served).reason, result(served).kubelet) == ("DaemonCrashLoop", "Noderuntime")
    assert LAST_ERROR in result(served).message
    with pytest.raises(NotUpgraded, match=LAST_ERROR):
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


async def test_crash_loop_with_an_invalid_switch_config_falls_back(served: FakeNode) -> None:
    await apply(served.context)
    served.layout.switch_config.write_text("mode = Manual # by hand, without quotes")
    await served.host.crash()
    assert f"{TWO} was rolled back" in await fallback(served.context)
    await check_serves(served, ONE)


async def test_crash_loop_with_an_invalid_record_reverts_the_kubelet(served: FakeNode) -> None:
    await apply(served.context)
    served.layout.releases.write_text('{"serving": {"revis')
    await served.host.crash()
    assert "uses unix:///run/containerd/containerd.sock again" in await fallback(served.context)
    assert not served.kubelet_is_switched


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


async def test_crash_loop_of_an_interrupted_upgrade_is_rolled_back(served: FakeNode) -> None:
    context, _ = killed_before(served, UPGRADE.index("prove"))
    with pytest.raises(Killed):
        await apply(context)
    served.host.exits[TWO] = LAST_ERROR
    await served.host.crash()
    assert await fallback(served.context) == "noderuntime.service has not failed"
    await check_serves(served, ONE)
    failed = release.load(served.layout).failed
    assert failed
    assert TWO in failed.message


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
    served.host.exits[TWO] = LAST_ERROR
    with pytest.raises(NotUpgraded, match=LAST_ERROR):
        await apply(served.context)
    assert served.host.version == ONE
    assert result(served).reason == upgrade_steps.ROLLED_BACK
    assert served.kubelet_is_switched
