"""Recovery from a dead daemon, a stopped upstream, a broken handler and a reboot."""

from __future__ import annotations

import grpc
import pytest

from conftest import World
from harness.run import wait_for
from story import cri, steps
from story.manifests import web_pod

PODS = {"ordinary": None, "runc": "runc", "gvisor": "gvisor"}
_COUNT = "i=0; while sleep 0.2; do i=$((i+1)); echo $i; done"
_ENDS_SOON = "sleep 4; echo bye; exit 7"


@pytest.fixture(scope="module")
def pods(world: World) -> dict[str, str | None]:
    """Web pods of every kind and one counting pod per handler, all Ready."""
    steps.install(world.cluster, world.image)
    steps.start_pods(world.cluster, PODS)
    for handler in steps.HANDLERS:
        world.cluster.kubectl.apply(web_pod(f"count-{handler}", handler, script=_COUNT))
        world.cluster.kubectl.wait_pod_ready(f"count-{handler}")
    return {**PODS, **{f"count-{handler}": handler for handler in steps.HANDLERS}}


def _identities(world: World, pods: dict[str, str | None]) -> dict[str, steps.Identity]:
    return {name: steps.identity(world.cluster, name) for name in pods}


def _daemon(world: World) -> str:
    return world.node.systemctl("show", "-P", "MainPID", "noderuntime").strip()


def _wait_until_served(world: World) -> None:
    """Wait until the daemon answers again."""

    def probe() -> bool:
        with cri.connect(world.node, cri.NODERUNTIME) as runtime:
            try:
                return cri.version(runtime) == "noderuntime"
            except grpc.RpcError:
                return False

    wait_for("daemon", probe, timeout=30)


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_pods_keep_running_while_the_daemon_is_dead(
    world: World, pods: dict[str, str | None], how: str
) -> None:
    before, counted = _identities(world, pods), {name: _last_count(world, name) for name in _counters()}
    for handler in steps.HANDLERS:
        pod = web_pod(f"ends-{handler}", handler, script=_ENDS_SOON)
        pod["spec"]["restartPolicy"] = "Never"
        world.cluster.kubectl.apply(pod)
        world.cluster.kubectl.wait_pod_ready(f"ends-{handler}")
    if how == "kill":
        world.node.exec("kill", "-9", _daemon(world))
    else:
        world.node.systemctl("restart", "noderuntime")
    _wait_until_served(world)
    for handler in steps.HANDLERS:
        _check_ended(world, f"ends-{handler}")
    assert _identities(world, pods) == before
    steps.check_connections(world.cluster, world.node, list(PODS))
    for name, count in counted.items():
        lines = [int(line) for line in world.cluster.kubectl("logs", name).split()]
        assert lines == list(range(1, len(lines) + 1))
        assert len(lines) > count


def _counters() -> list[str]:
    return [f"count-{handler}" for handler in steps.HANDLERS]


def _last_count(world: World, pod: str) -> int:
    return wait_for("count", lambda: len(world.cluster.kubectl("logs", pod).split()), timeout=20)


def _check_ended(world: World, pod: str) -> None:
    """Check the exit code and the log of a pod that ended while the daemon was down."""

    def probe() -> int | None:
        state = world.cluster.kubectl.get("pod", pod)["status"]["containerStatuses"][0]["state"]
        return state["terminated"]["exitCode"] if "terminated" in state else None

    assert wait_for(f"end of {pod}", probe, timeout=30) == 7
    assert world.cluster.kubectl("logs", pod).strip() == "bye"
    world.cluster.kubectl("delete", "pod", pod)


def test_lists_fail_while_the_upstream_is_down(world: World, pods: dict[str, str | None]) -> None:
    before = _identities(world, pods)
    world.node.systemctl("stop", "containerd")
    try:
        with cri.connect(world.node, cri.NODERUNTIME) as runtime:
            with pytest.raises(grpc.RpcError) as refused:
                cri.list_containers(runtime)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "hello" in steps.fetch(world.cluster, world.node, "runc", "http://127.0.0.1/")
    finally:
        world.node.systemctl("start", "containerd")
    with cri.connect(world.node, cri.NODERUNTIME) as runtime:
        wait_for("lists", lambda: _lists(runtime), timeout=30)
    world.cluster.kubectl.wait_node_ready(world.node.name)
    assert _identities(world, pods) == before


def _lists(runtime: cri.Runtime) -> bool:
    try:
        return bool(cri.list_containers(runtime))
    except grpc.RpcError:
        return False


def test_broken_runsc_is_reported_and_affects_no_other_pods(
    world: World, pods: dict[str, str | None]
) -> None:
    before = _identities(world, pods)
    runsc = "/opt/noderuntime/current/bin/runsc"
    world.node.exec("sh", "-c", f"mv {runsc} {runsc}.away")
    try:
        handler = wait_for("HandlerBroken", lambda: _broken(world), timeout=180, every=1)
        assert handler["name"] == "gvisor"
        assert "runsc" in handler["message"]
        degraded = world.cluster.kubectl.wait_condition("noderuntime", steps.RELEASE, "Degraded", timeout=60)
        assert world.node.name in degraded["message"]
        world.cluster.kubectl.apply(web_pod("after", "runc"))
        world.cluster.kubectl.wait_pod_ready("after")
        world.cluster.kubectl("delete", "pod", "after")
    finally:
        world.node.exec("sh", "-c", f"test -e {runsc} || mv {runsc}.away {runsc}")
    steps.wait_ready(world.cluster)
    assert _identities(world, pods) == before


def _broken(world: World) -> dict[str, str] | None:
    status = world.cluster.kubectl.get("noderuntimeinstance", world.node.name)["status"]
    return next((entry for entry in status["handlers"] if entry["state"] == "Broken"), None)


@pytest.mark.parametrize("hard", [False, True], ids=["orderly", "power cut"])
def test_pods_are_restarted_after_a_reboot(world: World, pods: dict[str, str | None], hard: bool) -> None:
    before = _identities(world, pods)
    world.node.reboot(hard=hard)

    def restarted() -> bool:
        now = _identities(world, pods)
        return all(now[name].restarts > before[name].restarts for name in pods)

    wait_for("every pod's container restarted", restarted, timeout=180, every=1)
    for name in pods:
        world.cluster.kubectl.wait_pod_ready(name, timeout=120)
    steps.wait_ready(world.cluster)
    steps.check_connections(world.cluster, world.node, list(PODS))
