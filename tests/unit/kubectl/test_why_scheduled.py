"""``kubectl noderuntime why``: a pod that has a node, or has ended."""

from __future__ import annotations

import pytest
from manifests import (
    condition,
    facts,
    handler,
    instance,
    node,
    pod,
    running,
    runtime_class,
    waiting,
    warning,
)

from kubectl_noderuntime.diagnosis import diagnose
from kubectl_noderuntime.facts import Facts

READY = (condition("Ready", "True"),)
SANDBOX = "FailedCreatePodSandBox"


def explained(found: Facts) -> tuple[str, str]:
    diagnosis = diagnose(found)
    return diagnosis.cause, diagnosis.text


def test_running_pod_names_node_handler_and_version() -> None:
    found = facts(pod(node="n1", phase="Running", conditions=READY, containers=(running(),)))
    assert explained(found) == (
        "Running",
        "Pod shop/web runs on n1 in handler gvisor (1.0) of NodeRuntime default, and is ready (1 container).",
    )


def test_running_pod_without_a_class_names_its_node() -> None:
    plain = pod(node="n1", spec={"runtimeClassName": None}, phase="Running", conditions=READY)
    assert explained(facts(plain, runtime_class={}))[1] == (
        "Pod shop/web runs on n1, and is ready (0 containers). It has no RuntimeClass, so it uses the"
        " default runtime of its node."
    )


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"phase": "Succeeded"}, "Pod shop/web has ended successfully."),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            "Pod shop/web has failed and is not restarted: Evicted: The node was low on memory.",
        ),
    ],
)
def test_ended_pod_says_how(status: dict[str, str], text: str) -> None:
    assert explained(facts(pod(node="n1", **status))) == ("Finished", text)  # type: ignore[arg-type]


def test_deleted_pod_names_node_and_finalizers() -> None:
    meta = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.test/backup"]}
    assert explained(facts(pod(node="n1", meta=meta))) == (
        "BeingDeleted",
        "Pod shop/web is being deleted; it exists until its containers on n1 have stopped, and until its"
        " finalizers are removed: example.test/backup.",
    )


def test_pod_on_a_node_that_is_down_quotes_its_condition() -> None:
    assert explained(facts(pod(node="n1"), node=node("Unknown"))) == (
        "NodeNotReady",
        "Pod shop/web does not run, because its node n1 is not Ready: KubeletStopped: no heartbeat.",
    )


def test_pod_of_a_missing_node_says_so() -> None:
    assert explained(facts(pod(node="n1"), node={})) == (
        "NodeMissing",
        "Pod shop/web is bound to node n1, which does not exist: delete the pod.",
    )


def test_failed_pull_quotes_the_registry_and_not_the_back_off() -> None:
    events = [
        warning("Failed", 'Failed to pull image "example.test/web:1": not found'),
        warning("Failed", "Error: ImagePullBackOff", at="2026-01-02T00:00:00Z"),
    ]
    found = facts(pod(node="n1", containers=(waiting("ImagePullBackOff", "Back-off"),)), events=events)
    assert explained(found) == (
        "ImagePull",
        "Pod shop/web does not run: the image example.test/web:1 of container web cannot be pulled on n1:"
        " Failed:"
        ' Failed to pull image "example.test/web:1": not found. Correct the image\'s name, or the pull'
        " secret.",
    )


def test_failed_pull_without_events_quotes_the_container() -> None:
    found = facts(pod(node="n1", containers=(waiting("ErrImagePull", "denied"),)), events=None)
    assert "cannot be pulled on n1: ErrImagePull: denied. Correct" in explained(found)[1]


def test_crash_loop_names_exit_status_and_log_command() -> None:
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    looping = waiting("CrashLoopBackOff", "back-off 5m0s", lastState=last, restartCount=7)
    assert explained(facts(pod(node="n1", phase="Running", containers=(looping,)))) == (
        "CrashLoop",
        "Pod shop/web is not ready on n1 in handler gvisor (1.0) of NodeRuntime default: its container web"
        " ended with exit status 137 (OOMKilled), after 7 restarts. Read its log: kubectl logs --namespace"
        " shop web --container web --previous",
    )


def test_container_that_ended_quotes_its_error() -> None:
    state = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: /nope: not found"}}
    ended = {"name": "web", "state": state, "restartCount": 1}
    assert explained(facts(pod(node="n1", phase="Running", containers=(ended,)))) == (
        "ContainerEnded",
        "Pod shop/web is not ready on n1 in handler gvisor (1.0) of NodeRuntime default: its container web"
        " ended with exit status 128 (StartError: exec: /nope: not found), after 1 restart. Read its log:"
        " kubectl logs --namespace shop web --container web",
    )


def test_message_of_an_ended_container_is_bounded() -> None:
    state = {"terminated": {"exitCode": 1, "reason": "Error", "message": "x" * 4096}}
    ended = {"name": "web", "state": state}
    assert len(explained(facts(pod(node="n1", phase="Running", containers=(ended,))))[1]) < 800


def test_old_sandbox_failure_does_not_explain_a_slow_pull() -> None:
    has_sandbox = condition("PodReadyToStartContainers", "True")
    starting = pod(node="n1", conditions=(has_sandbox,), containers=(waiting("ContainerCreating"),))
    assert explained(facts(starting, events=[warning(SANDBOX, "old")]))[0] == "Starting"


def test_container_that_cannot_be_created_quotes_the_kubelet() -> None:
    found = facts(pod(node="n1", containers=(waiting("CreateContainerError", "runsc: no such file"),)))
    assert explained(found) == (
        "ContainerFailed",
        "Pod shop/web does not run: its container web cannot start on n1 in handler gvisor (1.0) of"
        " NodeRuntime default: CreateContainerError: runsc: no such file.",
    )


def test_failed_init_container_comes_first() -> None:
    init = {**waiting("CreateContainerConfigError", 'secret "x" not found'), "name": "prepare"}
    blocked = pod(node="n1", containers=(waiting("PodInitializing"),), initContainerStatuses=[init])
    assert "its container prepare cannot start" in explained(facts(blocked))[1]


def test_failed_sandbox_has_event_and_agent_report() -> None:
    broken = [instance("n1", "Degraded", handlers=[handler("gvisor", "Broken", "runsc: no memory")])]
    events = [
        warning(SANDBOX, "old"),
        warning(SANDBOX, "Failed to create pod sandbox: exit status 1", at="2026-01-01T00:00:05Z"),
    ]
    starting = pod(node="n1", containers=(waiting("ContainerCreating"),))
    assert explained(facts(starting, events=events, instances=broken)) == (
        "SandboxFailed",
        "Pod shop/web does not run: its sandbox cannot be created on n1 in handler gvisor (1.0) of"
        " NodeRuntime default: FailedCreatePodSandBox: Failed to create pod sandbox: exit status 1. The"
        " node's agent reports that the handler is broken: HandlerBroken: runsc: no memory.",
    )


def test_sandbox_on_a_node_without_the_handler_blames_node_name() -> None:
    events = [warning(SANDBOX, 'no runtime handler "gvisor" on this node (known: runc)')]
    assert explained(facts(pod(node="n2"), events=events)) == (
        "HandlerMissing",
        "Pod shop/web does not run: its sandbox cannot be created on n2 in handler gvisor of NodeRuntime"
        " default:"
        ' FailedCreatePodSandBox: no runtime handler "gvisor" on this node (known: runc). Its nodeName'
        " bypasses the scheduler, which selects nodes with the handler gvisor.",
    )


def test_sandbox_of_a_foreign_class_names_the_right_class() -> None:
    events = [warning(SANDBOX, 'no runtime handler for "gvisor" is configured')]
    sandboxed = pod(node="n2", spec={"runtimeClassName": "sandboxed"})
    found = facts(sandboxed, events=events, runtime_class=runtime_class(owner=None, name="sandboxed"))
    assert explained(found) == (
        "RuntimeClassForeign",
        "Pod shop/web does not run: its sandbox cannot be created on n2 in handler gvisor:"
        " FailedCreatePodSandBox:"
        ' no runtime handler for "gvisor" is configured. RuntimeClass sandboxed belongs to no NodeRuntime.'
        " Use RuntimeClass gvisor of NodeRuntime default, which has its handler.",
    )


def test_volume_that_cannot_be_mounted_is_the_newest_warning() -> None:
    events = [
        warning("FailedScheduling", "0/1 nodes are available", at="2026-01-03T00:00:00Z"),
        warning("FailedMount", 'configmap "x" not found', at="2026-01-02T00:00:00Z"),
    ]
    assert explained(facts(pod(node="n1"), events=events)) == (
        "Warned",
        'Pod shop/web does not run yet on n1; its newest event is FailedMount: configmap "x" not found.',
    )


def test_pod_that_starts_has_no_other_cause() -> None:
    events = [warning("FailedScheduling", "0/1 nodes are available")]
    assert explained(facts(pod(node="n1", containers=(waiting("ContainerCreating"),)), events=events)) == (
        "Starting",
        "Pod shop/web is starting on n1 in handler gvisor (1.0) of NodeRuntime default.",
    )


def test_pod_that_is_not_ready_quotes_the_probe() -> None:
    unready = pod(node="n1", phase="Running", containers=(running(ready=False),))
    events = [warning(SANDBOX, "long ago"), warning("Unhealthy", "Readiness probe failed: 503")]
    assert explained(facts(unready, events=events)) == (
        "NotReady",
        "Pod shop/web runs on n1 in handler gvisor (1.0) of NodeRuntime default, but its containers web are"
        " not ready. The kubelet reports Unhealthy: Readiness probe failed: 503.",
    )


def test_control_characters_of_a_message_are_escaped() -> None:
    events = [warning("FailedMount", "a\x1b[31m\nb\x9b1m\u202ec")]
    assert explained(facts(pod(node="n1"), events=events))[1] == (
        "Pod shop/web does not run yet on n1; its newest event is FailedMount: a\\x1b[31m b\\x9b1m\\u202ec."
    )
