from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from builders import instance, node, pod, proven, runtime, runtime_class, spec, world

from noderuntime_operator.api import Condition, NodeRuntimeStatus
from noderuntime_operator.events import event, news
from noderuntime_operator.observation import Observation, RuntimeView
from noderuntime_operator.rollout import plan
from noderuntime_operator.status import status

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def of(asked: RuntimeView, seen: Observation) -> NodeRuntimeStatus:
    return status(asked, seen, plan(asked, seen), NOW)


def condition(found: NodeRuntimeStatus, kind: str) -> Condition:
    return next(c for c in found.conditions or () if c.type == kind)


def test_all_nodes_ready() -> None:
    found = of(runtime(), world(node("n1", "runc"), instance("n1", handlers=proven("runc"))))
    assert (found.desired_nodes, found.ready_nodes, found.updated_nodes) == (1, 1, 1)
    assert [(c.type, c.status) for c in found.conditions or ()] == [
        ("Ready", "True"),
        ("Progressing", "False"),
        ("Degraded", "False"),
    ]


def test_no_node_is_not_ready() -> None:
    assert condition(of(runtime(), world()), "Ready").reason == "NoNodes"


def test_a_broken_handler_is_told_in_the_tools_words_on_one_line() -> None:
    handlers = proven("runc") + proven(
        "gvisor", state="Broken", reason="HandlerBroken", message="no\n such file"
    )
    asked = runtime(spec("runc", "gvisor"))
    found = of(asked, world(node("n1"), instance("n1", "Degraded", asked.spec, handlers=handlers)))
    (failing,) = found.failing_nodes or ()
    assert (failing.name, failing.reason) == ("n1", "HandlerBroken")
    assert failing.message == "handler gvisor: no such file"
    assert condition(found, "Degraded").message == "n1: handler gvisor: no such file"


def test_a_failed_switch_is_told_by_the_agents_condition() -> None:
    said = {"type": "Ready", "status": "False", "reason": "KubeletDidNotComeBack", "message": "reverted"}
    failed = instance("n1", "Failed", conditions=[{**said, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    found = of(runtime(), world(node("n1"), failed, node("n2", claimed=None)))
    assert condition(found, "Degraded").reason == "KubeletDidNotComeBack"
    assert condition(found, "Progressing").message == "waiting for failed or absent nodes: n2"


def test_at_most_ten_failing_nodes_are_named() -> None:
    nodes = [node(f"n{i:02}") for i in range(25)]
    failed = [instance(f"n{i:02}", "Failed") for i in range(25)]
    found = of(runtime(), world(*nodes, *failed))
    assert len(found.failing_nodes or ()) == 10
    assert found.desired_nodes == 25
    assert "and 15 more" in condition(found, "Degraded").message


def test_silent_and_absent_nodes_fail() -> None:
    silent = instance("n1", last_heartbeat_time=None, lastHeartbeatTime="2026-01-01T00:00:00Z")
    found = of(runtime(), world(node("n1"), silent, node("n2", ready=False)))
    assert [(f.name, f.reason) for f in found.failing_nodes or ()] == [
        ("n1", "AgentSilent"),
        ("n2", "NodeNotReady"),
    ]
    assert found.ready_nodes == 0


def test_a_restarting_kubelet_is_no_failure_and_not_ready() -> None:
    restarting = replace(node("n1", "runc", ready=False), since=NOW - timedelta(seconds=20))
    seen = world(restarting, instance("n1", handlers=proven("runc")))
    found = of(runtime(), seen)
    assert not found.failing_nodes
    assert (found.ready_nodes, condition(found, "Degraded").status) == (0, "False")
    late = status(runtime(), seen, plan(runtime(), seen), NOW + timedelta(minutes=2))
    assert [f.reason for f in late.failing_nodes or ()] == ["NodeNotReady"]


def test_an_agent_that_never_reported_fails_after_a_while() -> None:
    seen = world(node("n1"), instance("n1", phase=None))
    assert not of(runtime(), seen).failing_nodes
    late = status(runtime(), seen, plan(runtime(), seen), NOW + timedelta(minutes=10))
    assert [f.reason for f in late.failing_nodes or ()] == ["NoAgent"]


def test_a_refusal_is_told() -> None:
    found = status(runtime(), world(), plan(runtime(), world()), NOW, "daemonsets is\nforbidden")
    assert condition(found, "Degraded").reason == "Refused"
    assert condition(found, "Degraded").message == "the API server refuses: daemonsets is forbidden"


def test_an_outdated_answer_does_not_count_as_ready() -> None:
    found = of(runtime(), world(node("n1"), instance("n1", generation=2)))
    assert (found.ready_nodes, found.updated_nodes) == (0, 0)
    assert condition(found, "Ready").reason == "Installing"
    assert condition(found, "Progressing").message == "changing: n1"


def test_conflicts_say_which() -> None:
    taken = of(runtime(), world(node("n1", claimed="x"), instance("n1", runtime_name="x")))
    assert condition(taken, "Degraded").message == "n1: node n1 belongs to NodeRuntime x"
    foreign = of(runtime(), world(runtime_class(owner="x")))
    assert condition(foreign, "Degraded").reason == "RuntimeClassConflict"


def test_a_held_deletion_names_the_pods() -> None:
    seen = world(node("n1", "runc"), instance("n1", handlers=proven("runc")), runtime_class(), pod())
    found = of(runtime(deleting=True), seen)
    assert (found.desired_nodes, found.ready_nodes) == (1, 1)
    for kind in ("Ready", "Progressing"):
        assert condition(found, kind).reason == "PodsStillRunning"
        assert "default/user" in condition(found, kind).message


def test_transition_times_stay_while_the_status_stays() -> None:
    seen = world(node("n1", "runc"), instance("n1", handlers=proven("runc")))
    old = Condition(
        type="Ready", status="True", last_transition_time="2025-01-01T00:00:00Z", reason="X", message=""
    )
    found = of(runtime(status=NodeRuntimeStatus(conditions=[old])), seen)
    assert condition(found, "Ready").last_transition_time == "2025-01-01T00:00:00Z"
    assert condition(found, "Degraded").last_transition_time == "2026-01-02T00:00:00Z"


def test_a_status_told_twice_is_the_same() -> None:
    seen = world(node("n1", "runc"), instance("n1", handlers=proven("runc")))
    first = of(runtime(), seen)
    again = NodeRuntimeStatus.model_validate(first.dump())
    assert of(runtime(status=again), seen) == again
    assert not list(news(again, first))


def test_what_is_new_becomes_an_event() -> None:
    seen = world(node("n1"), instance("n1", "Failed"))
    found = of(runtime(), seen)
    reasons = [c.reason for c in news(NodeRuntimeStatus(), found)]
    assert reasons == ["NodesFailing", "Failed"]
    told = event(runtime(), condition(found, "Degraded"), NOW)
    assert told["type"] == "Warning"
    assert told["involvedObject"]["name"] == "rt"
