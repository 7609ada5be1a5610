"""Many pods, a killed daemon, a rebooted node: pods keep running, and nothing is left behind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import grpc
import pytest
from kubelet.kit import traces
from kubelet.kit.pods import SERVE, SLEEP, container, deployment, job, once, pod, service, spec, variants
from kubelet.kit.workloads import Workloads, completes, gone
from kubelet.kit.world import World

from harness.run import wait_for
from story import cri

_MANY = 50
_ENDS_SOON = "sleep 3; echo bye; exit 7"
_COUNT = "i=0; while sleep 0.2; do i=$((i+1)); echo $i; done"


@dataclass(frozen=True)
class Identity:
    """The identity of a pod's container: it changes with a restart."""

    container: str
    restarts: int


def _identity(workloads: Workloads, name: str) -> Identity:
    status = workloads.container(name)
    return Identity(status["containerID"], status["restartCount"])


def _daemon(world: World) -> str:
    return world.node.systemctl("show", "-P", "MainPID", "noderuntime").strip()


def _is_served(world: World) -> bool:
    with cri.connect(world.node, cri.NODERUNTIME) as runtime:
        try:
            return cri.version(runtime) == "noderuntime"
        except grpc.RpcError:
            return False


def test_pods_keep_running_when_the_daemon_is_killed(world: World, workloads: Workloads) -> None:
    counting, serving = variants("counts"), variants("serves")
    for names, script in ((counting, _COUNT), (serving, SERVE)):
        main = container("main", script)
        workloads.ready(*(pod(name, main, runtime=runtime) for name, runtime in names.items()))
    before = {name: _identity(workloads, name) for name in (*counting, *serving)}
    ending = variants("ends")
    workloads.apply(*(once(name, _ENDS_SOON, runtime) for name, runtime in ending.items()))
    for name in ending:
        workloads.kubectl.wait_pod_ready(name)
    old = _daemon(world)
    world.node.exec("kill", "-9", old)
    for name in serving:
        ip = workloads.kubectl.get("pod", name)["status"]["podIP"]
        assert world.node.exec("busybox", "wget", "-qO-", f"http://{ip}/") == f"{name}\n"
    assert wait_for("daemon", partial(_serving_daemon, world), timeout=60) != old
    for name in ending:
        assert workloads.ended(name)["exitCode"] == 7
        assert workloads.log(name) == "bye\n"
    assert {name: _identity(workloads, name) for name in before} == before
    for name in counting:
        lines = [int(line) for line in workloads.log(name).split()]
        assert lines == list(range(1, len(lines) + 1))
        assert workloads.run_in(name, "echo", "there") == "there\n"


def test_daemon_killed_during_starts_starts_every_pod(world: World, workloads: Workloads) -> None:
    workloads.apply(deployment("stormy", 16, spec(container("main", SLEEP))))
    workloads.apply(job("batch", spec(container("main", "echo done")), completions=6, parallelism=3))
    for _ in range(4):
        served = wait_for("daemon", partial(_serving_daemon, world), timeout=60)
        wait_for("work", partial(_has_grown, world, _containers(world)), timeout=60, every=0.02)
        world.node.exec("kill", "-9", served)
    workloads.kubectl("rollout", "status", "deployment/stormy", "--timeout=180s", timeout=190)
    assert completes(workloads, "batch", timeout=120)["succeeded"] == 6
    workloads.delete("deployment/stormy", "job/batch")
    for name in ("stormy", "batch"):
        gone(workloads, name)
    traces.nothing_runs(world.node)


def _serving_daemon(world: World) -> str | None:
    return _daemon(world) if _is_served(world) else None


def _containers(world: World) -> int:
    with cri.connect(world.node, cri.NODERUNTIME) as runtime:
        return len(cri.list_containers(runtime))


def _has_grown(world: World, before: int) -> bool:
    return _containers(world) > before


@pytest.mark.parametrize("round_", [1, 2])
def test_fifty_pods_leave_nothing_behind(world: World, workloads: Workloads, round_: int) -> None:
    sealed = 4
    of = container("main", SLEEP, resources={"requests": {"cpu": "1m"}})
    workloads.apply(
        deployment("many", _MANY - sealed, spec(of)), deployment("sealed", sealed, spec(of, runtime="gvisor"))
    )
    for name in ("many", "sealed"):
        workloads.kubectl("rollout", "status", f"deployment/{name}", "--timeout=240s", timeout=250)
    pods = workloads.pods_of("many") + workloads.pods_of("sealed")
    assert len({one["status"]["podIP"] for one in pods}) == _MANY
    assert all(one["status"]["containerStatuses"][0]["restartCount"] == 0 for one in pods)
    workloads.delete("deployment/many", "deployment/sealed")
    for name in ("many", "sealed"):
        gone(workloads, name, timeout=120)
    traces.nothing_runs(world.node)
    if round_ == 2:
        traces.nothing_is_known(world.node)


@pytest.mark.parametrize("how", ["orderly", "power-cut"])
def test_pods_are_restarted_after_a_reboot(world: World, workloads: Workloads, how: str) -> None:
    names = variants(how)
    mounts, data = [{"name": "data", "mountPath": "/data"}], [{"name": "data", "emptyDir": {}}]
    main = container("main", f"echo >> /data/starts; {SERVE}", volumeMounts=mounts)
    workloads.ready(*(pod(name, main, runtime=runtime, volumes=data) for name, runtime in names.items()))
    workloads.apply(*(service(name) for name in names))
    before = {name: _identity(workloads, name) for name in names}
    world.node.reboot(hard=how == "power-cut")
    for name in names:
        workloads.restarted(name, times=before[name].restarts + 1, timeout=180)
        workloads.kubectl.wait_pod_ready(name, timeout=60)
        assert _identity(workloads, name).container != before[name].container
        address = workloads.kubectl.get("service", name)["spec"]["clusterIP"]
        wait_for("service", partial(_answers, world, address, f"{name}\n"), timeout=60)
        assert workloads.run_in(name, "wc", "-l", "/data/starts").split()[0] == "2"
        last = workloads.container(name)["lastState"]["terminated"]
        assert last["containerID"] == before[name].container
    workloads.ready(pod(f"after-{how}", container("main", SLEEP, imagePullPolicy="Never")))


def _answers(world: World, address: str, text: str) -> bool:
    return world.node.exec("busybox", "wget", "-qO-", f"http://{address}/") == text
