"""Pods that end: Jobs, exit codes, init containers, sidecars, hooks and termination messages."""

from __future__ import annotations

import pytest
from kubelet.kit.pods import CLASSES, SLEEP, container, job, named, once, pod, spec, variants
from kubelet.kit.workloads import Workloads, completes

from harness.kubectl import Manifest
from harness.run import wait_for

_ENDS: dict[str, tuple[str, int, str]] = {
    "well": ("true", 0, "Completed"),
    "with-a-code": ("exit 42", 42, "Error"),
    "by-a-signal": ("sleep 1000 & kill -9 $!; wait $!", 137, "Error"),
    "not-found": ("exec /there/is/none", 127, "Error"),
}
"""By name: script, exit code, reason."""
_WAITS = "while :; do sleep 0.1; done"
_SIDECAR = f"sleep 1; touch /data/sidecar-is-up; trap 'echo sidecar ends; exit 0' TERM; {_WAITS}"
_SECOND_TIME = "echo >> /data/n; n=$(wc -l < /data/n); echo attempt $n; [ $n -eq 2 ] || exit 3"


def _on_host(name: str) -> Manifest:
    return {"name": "data", "hostPath": {"path": f"/var/lib/kubelet/{name}", "type": "DirectoryOrCreate"}}


_DATA = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}


@pytest.mark.parametrize("runtime", CLASSES)
def test_exit_code_and_reason_of_a_container_are_reported(workloads: Workloads, runtime: str | None) -> None:
    names = {named(f"ends-{how}", runtime): how for how in _ENDS}
    workloads.apply(*(once(name, f"echo {how}; {_ENDS[how][0]}", runtime) for name, how in names.items()))
    for name, how in names.items():
        ended = workloads.ended(name)
        assert (ended["exitCode"], ended["reason"]) == _ENDS[how][1:], name
        assert workloads.log(name).splitlines()[0] == how
        assert ended["startedAt"] <= ended["finishedAt"]


def test_missing_command_is_reported_in_one_line(workloads: Workloads) -> None:
    for name, runtime in variants("no-command").items():
        manifest = once(name, "", runtime)
        manifest["spec"]["containers"][0]["command"] = ["/there/is/none"]
        workloads.apply(manifest)
    for name in variants("no-command"):
        message = workloads.event(name, "Failed", "/there/is/none")
        assert "\n" not in message
        ended = workloads.ended(name)
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
        assert "/there/is/none" in ended["message"]


def test_job_with_a_missing_command_uses_up_its_backoff(workloads: Workloads) -> None:
    for name, runtime in variants("typo").items():
        main = container("main", "") | {"command": ["/there/is/none"]}
        workloads.apply(job(name, spec(main, runtime=runtime), backoffLimit=1))
    for name in variants("typo"):
        assert completes(workloads, name, "Failed")["failed"] == 2
        assert workloads.kubectl.condition("job", name, "Failed")["reason"] == "BackoffLimitExceeded"  # type: ignore[index]


def test_job_is_retried_until_it_succeeds(workloads: Workloads) -> None:
    for name, runtime in variants("second-time").items():
        of = spec(container("main", _SECOND_TIME, **_DATA), runtime=runtime, volumes=[_on_host(name)])
        workloads.apply(job(name, of, backoffLimit=4))
    for name in variants("second-time"):
        status = completes(workloads, name)
        assert (status["succeeded"], status["failed"]) == (1, 1)
        logs = {one["metadata"]["name"]: _exit_code(one) for one in workloads.pods_of(name)}
        assert {workloads.log(pod): code for pod, code in logs.items()} == {
            "attempt 1\n": 3,
            "attempt 2\n": 0,
        }


def _exit_code(pod: Manifest) -> int:
    return int(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"])


def test_job_fails_at_each_of_its_limits(workloads: Workloads) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    workloads.apply(
        job("hopeless", spec(container("main", "exit 3")), backoffLimit=1),
        job("fatal", spec(container("main", "exit 42")), backoffLimit=6, podFailurePolicy={"rules": [rule]}),
        job("late", spec(container("main", SLEEP)), activeDeadlineSeconds=3),
    )
    assert completes(workloads, "hopeless", "Failed")["failed"] == 2
    assert completes(workloads, "fatal", "Failed")["failed"] == 1
    assert workloads.kubectl.condition("job", "fatal", "Failed")["reason"] == "PodFailurePolicy"  # type: ignore[index]
    completes(workloads, "late", "Failed")
    wait_for("its pod is stopped", lambda: not workloads.pods_of("late"), timeout=30)


@pytest.mark.parametrize("runtime", CLASSES)
def test_init_containers_run_first_and_sidecars_stay(workloads: Workloads, runtime: str | None) -> None:
    name = named("ordered", runtime)
    probe = {"exec": {"command": ["test", "-e", "/data/sidecar-is-up"]}, "periodSeconds": 1}
    of = spec(
        container("main", "cat /data/log; test -e /data/sidecar-is-up && echo main", **_DATA),
        runtime=runtime,
        terminationGracePeriodSeconds=20,
        volumes=[{"name": "data", "emptyDir": {}}],
        initContainers=[
            container("first", "sleep 1; echo first >> /data/log", **_DATA),
            container("sidecar", _SIDECAR, restartPolicy="Always", startupProbe=probe, **_DATA),
            container("second", "test -e /data/sidecar-is-up; echo second $? >> /data/log", **_DATA),
        ],
    )
    workloads.apply(job(name, of, backoffLimit=0))
    completes(workloads, name)
    [made] = workloads.pods_of(name)
    pod_name = made["metadata"]["name"]
    assert workloads.log(pod_name, "-c", "main").splitlines() == ["first", "second 0", "main"]
    assert workloads.log(pod_name, "-c", "sidecar") == "sidecar ends\n"
    assert workloads.ended(pod_name, "sidecar", "initContainerStatuses")["exitCode"] == 0


def test_init_container_is_retried_until_it_succeeds(workloads: Workloads) -> None:
    manifest = pod(
        "slow-start",
        container("main", f"echo main; {SLEEP}"),
        volumes=[_on_host("slow-start")],
        initContainers=[container("init", _SECOND_TIME, **_DATA)],
    )
    workloads.ready(manifest)
    assert workloads.container("slow-start", kind="initContainerStatuses")["restartCount"] == 1
    assert workloads.log("slow-start") == "main\n"


def test_hooks_run_and_termination_message_is_reported(workloads: Workloads) -> None:
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /data/hook"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo goes > /data/hook"]}},
    }
    script = f"trap 'cat /data/hook > /dev/termination-log; exit 9' TERM; {_WAITS}"
    fields: Manifest = {
        "volumes": [{"name": "data", "emptyDir": {}}],
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 8,
        "terminationGracePeriodSeconds": 20,
    }
    main = container("main", script, lifecycle=hooks, **_DATA)
    names = variants("hooked")
    workloads.ready(*(pod(name, main, runtime=runtime, **fields) for name, runtime in names.items()))
    for name in names:
        assert workloads.run_in(name, "cat", "/data/hook") == "started\n"
    for name in names:
        ended = workloads.ended(name)
        assert (ended["exitCode"], ended.get("message")) == (9, "goes\n")
        assert workloads.kubectl.get("pod", name)["status"]["reason"] == "DeadlineExceeded"


def test_termination_message_falls_back_to_the_log(workloads: Workloads) -> None:
    manifest = once("dies", "echo why it died; exit 1")
    manifest["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError"
    workloads.apply(manifest)
    assert workloads.ended("dies")["message"] == "why it died\n"
