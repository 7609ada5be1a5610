"""Deployments: probes of every kind, a rolling update under load, and logs."""

from __future__ import annotations

import signal
from functools import partial

import pytest
from kubelet.kit.pods import CLASSES, SERVE, SLEEP, container, deployment, named, pod, service, spec, variants
from kubelet.kit.settings import kubelet_settings
from kubelet.kit.workloads import Workloads
from kubelet.kit.world import World

from harness.kubectl import Manifest
from harness.paths import tool
from harness.run import run, wait_for

_PROBES: dict[str, Manifest] = {
    "exec": {"exec": {"command": ["test", "-e", "/tmp/alive"]}},
    "http": {"httpGet": {"path": "/alive", "port": 80}},
    "tcp": {"tcpSocket": {"port": 80}},
}
_DIES_IN_EVERY_SENSE = """
mkdir /www && touch /www/alive /tmp/alive
httpd -f -h /www -p 80 & sleep 4; rm /www/alive /tmp/alive; kill $!; exec sleep 1000
"""
# Linux does not deliver a signal without a handler to PID 1; gVisor does.
_ENDED_BY = {None: signal.SIGKILL, "gvisor": signal.SIGTERM}
_CLIENT = "while sleep 0.05; do timeout 9 wget -qO- http://$URL/version || echo FAILED; done"


def _web(version: str, runtime: str | None) -> Manifest:
    """Return a pod that serves its version, is ready after a second, and finishes running requests."""
    script = f"sleep 1; mkdir -p /www; echo {version} > /www/version; exec httpd -f -h /www -p 80"
    often = {"periodSeconds": 1, "timeoutSeconds": 5}
    probed = container(
        "web", script,
        startupProbe={**_PROBES["tcp"], **often, "failureThreshold": 30},
        readinessProbe={"httpGet": {"path": "/version", "port": 80}, **often},
        livenessProbe={"exec": {"command": ["test", "-s", "/www/version"]}, **often},
        lifecycle={"preStop": {"exec": {"command": ["sleep", "2"]}}},
    )  # fmt: skip
    return spec(probed, runtime=runtime, terminationGracePeriodSeconds=5)


@pytest.mark.parametrize("runtime", CLASSES)
def test_rolling_update_fails_no_request(workloads: Workloads, runtime: str | None) -> None:
    name = named("web", runtime)
    workloads.apply(deployment(name, 2, _web("v1", runtime)), service(name))
    workloads.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
    address = workloads.kubectl.get("service", name)["spec"]["clusterIP"]
    env = [{"name": "URL", "value": address}]
    workloads.ready(pod(f"client-{name}", container("main", _CLIENT, env=env)))
    workloads.logged(f"client-{name}", "v1")
    workloads.apply(deployment(name, 2, _web("v2", runtime)))
    workloads.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
    log = workloads.logged(f"client-{name}", "v2").split()
    wait_for("old pods gone", lambda: len(workloads.pods_of(name)) == 2, timeout=60)
    assert set(log) == {"v1", "v2"}
    assert all(
        workloads.container(one["metadata"]["name"])["restartCount"] == 0 for one in workloads.pods_of(name)
    )


def test_failed_liveness_probe_restarts_the_container(workloads: Workloads) -> None:
    names = {name: (kind, runtime) for kind in _PROBES for name, runtime in variants(kind).items()}
    for name, (kind, runtime) in names.items():
        probe = {**_PROBES[kind], "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 5}
        workloads.apply(
            pod(name, container("main", _DIES_IN_EVERY_SENSE, livenessProbe=probe), runtime=runtime)
        )
    for name in names:
        workloads.restarted(name)
        assert "Liveness probe failed" in workloads.event(name, "Unhealthy")
        last = workloads.container(name)["lastState"]["terminated"]
        assert last["exitCode"] == 128 + _ENDED_BY[names[name][1]]


def test_exec_probe_is_ended_at_its_timeout(workloads: Workloads) -> None:
    hangs = {"exec": {"command": ["sleep", "600"]}, "timeoutSeconds": 1, "periodSeconds": 1}
    names = variants("hangs")
    for name, runtime in names.items():
        workloads.apply(pod(name, container("main", SLEEP, readinessProbe=hangs), runtime=runtime))
    for name in names:
        assert "timed out" in workloads.event(name, "Unhealthy")
        wait_for("probes are ended", partial(_few_sleep, workloads, name), timeout=20)


def _few_sleep(workloads: Workloads, pod: str) -> bool:
    """Return whether at most one probe is running."""
    return sum("sleep 600" in line for line in workloads.run_in(pod, "ps").splitlines()) <= 1


def test_pod_not_ready_is_not_an_endpoint_of_its_service(workloads: Workloads) -> None:
    ready = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    workloads.apply(pod("gated", container("main", SERVE, readinessProbe=ready)), service("gated"))
    workloads.event("gated", "Unhealthy", "Readiness probe failed")
    assert _endpoints(workloads, "gated") == []
    workloads.run_in("gated", "touch", "/tmp/ready")
    workloads.kubectl.wait_pod_ready("gated")
    ip = workloads.kubectl.get("pod", "gated")["status"]["podIP"]
    wait_for("endpoint", lambda: _endpoints(workloads, "gated") == [ip], timeout=20)
    workloads.run_in("gated", "rm", "/tmp/ready")
    wait_for("no endpoint", lambda: _endpoints(workloads, "gated") == [], timeout=20)


def _endpoints(workloads: Workloads, name: str) -> list[str]:
    slices = workloads.kubectl.get("endpointslices", "-l", f"kubernetes.io/service-name={name}")["items"]
    return [
        address
        for part in slices
        for endpoint in part["endpoints"] or []
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    ]


@pytest.mark.parametrize("runtime", CLASSES)
def test_kubectl_logs_follows_a_log_to_its_end(workloads: Workloads, runtime: str | None) -> None:
    name = named("talks", runtime)
    script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; echo last >&2"
    workloads.apply(pod(name, container("main", script), runtime=runtime, restartPolicy="Never"))
    workloads.logged(name, "line 3")
    wanted = [*(f"line {number}" for number in range(1, 61)), "last"]
    followed = run(*_logs(workloads, name, "-f"), timeout=60)
    assert followed.splitlines() == wanted
    assert workloads.log(name, "--tail=2").splitlines() == wanted[-2:]
    assert all(line[:2] == "20" for line in workloads.log(name, "--timestamps").splitlines())


def _logs(workloads: Workloads, *argv: str) -> list[str]:
    return [tool("kubectl"), f"--kubeconfig={workloads.kubectl.kubeconfig}", "logs", *argv]


def test_log_of_the_previous_container_is_kept(workloads: Workloads) -> None:
    script = "echo >> /data/n; n=$(wc -l < /data/n); echo run $n; [ $n -gt 1 ] || exit 5; exec sleep 1000"
    mounted = container("main", script, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    workloads.apply(pod("twice", mounted, volumes=[{"name": "data", "emptyDir": {}}]))
    workloads.restarted("twice")
    assert workloads.log("twice", "--previous") == "run 1\n"
    assert workloads.log("twice") == "run 2\n"
    assert workloads.container("twice")["lastState"]["terminated"]["exitCode"] == 5


def test_rotated_log_is_complete(world: World, workloads: Workloads) -> None:
    names, main = variants("long"), container("main", "i=0; while sleep 0.01; do i=$((i+1)); echo $i; done")
    small = {"containerLogMaxSize": "4Ki", "containerLogMonitorInterval": "3s", "containerLogMaxFiles": 100}
    with kubelet_settings(world.cluster, world.node, **small):
        workloads.ready(*(pod(name, main, runtime=runtime) for name, runtime in names.items()))
        for name in names:
            wait_for("rotated twice and complete", partial(_is_rotated_and_complete, world, name), timeout=60)
        for name in names:
            assert int(workloads.log(name, "--tail=1")) > 100


def _is_rotated_and_complete(world: World, pod: str) -> bool:
    """Return whether a log was rotated twice and has no gap; the kubelet may be compressing it."""
    directory = f"$(echo /var/log/pods/default_{pod}_*/main)"
    files = world.node.exec("sh", "-c", f"cd {directory}; ls 0.log.* | sort").split()
    text = world.node.exec("sh", "-c", f"cd {directory}; zcat -f {' '.join(files)} 0.log")
    numbers = [int(line.split()[3]) for line in text.splitlines()]
    return len(files) >= 2 and numbers == list(range(1, len(numbers) + 1))
