from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from builders import instance, node, pod, proven, runtime, runtime_class, spec, world

from noderuntime_operator.api.base import Condition
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import ClusterState, RuntimeView
from noderuntime_operator.events import changed_conditions, event
from noderuntime_operator.rollout import plan
from noderuntime_operator.status import status

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def status_of(wanted: RuntimeView, state: ClusterState) -> NodeRuntimeStatus:
    return status(wanted, state, plan(wanted, state), NOW)


def condition(found: NodeRuntimeStatus, kind: str) -> Condition:
    return next(c for c in found.conditions or () if c.type == kind)


def test_status_is_ready_when_all_nodes_are() -> None:
    found = status_of(runtime(), world(node("n1", "runc"), instance("n1", handlers=proven("runc"))))
    assert (found.desired_nodes, found.ready_nodes, found.updated_nodes) == (1, 1, 1)
    assert [(c.type, c.status) for c in found.conditions or ()] == [
        ("Available", "True"),
        ("Ready", "True"),
        ("Progressing", "False"),
        ("Degraded", "False"),
        ("RolledBack", "False"),
    ]


def test_status_without_nodes_is_not_ready() -> None:
    assert condition(status_of(runtime(), world()), "Ready").reason == "NoNodes"


def test_status_quotes_a_broken_handlers_error_on_one_line() -> None:
    handlers = proven("runc") + proven(
        "gvisor", state="Broken", reason="HandlerBroken", message="no\n such file"
    )
    wanted = runtime(spec("runc", "gvisor"))
    found = status_of(wanted, world(node("n1"), instance("n1", "Degraded", wanted.spec, handlers=handlers)))
    (failing,) = found.failing_nodes or ()
    assert (failing.name, failing.reason) == ("n1", "HandlerBroken")
    assert failing.message == "handler gvisor: no such file"
    assert condition(found, "Degraded").message == "n1: handler gvisor: no such file"


def test_status_quotes_the_agents_condition_of_a_failed_switch() -> None:
    reported = {"type": "Ready", "status": "False", "reason": "SwitchReverted", "message": "reverted"}
    failed = instance("n1", "Failed", conditions=[{**reported, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    found = status_of(runtime(), world(node("n1"), failed, node("n2", claimed=None)))
    assert condition(found, "Degraded").reason == "SwitchReverted"
    name = found.update_revision
    assert condition(found, "Progressing").message == (
        f"1 of 2 nodes were given revision {name}; 1 nodes failed, and update.maxFailures allows 0: n1;"
        " n1: reverted"
    )


def test_status_names_at_most_ten_failing_nodes() -> None:
    nodes = [node(f"n{i:02}") for i in range(25)]
    failed = [instance(f"n{i:02}", "Failed") for i in range(25)]
    found = status_of(runtime(), world(*nodes, *failed))
    assert len(found.failing_nodes or ()) == 10
    assert found.desired_nodes == 25
    assert "and 15 more" in condition(found, "Degraded").message


def test_status_reports_silent_agents_and_nodes_not_ready() -> None:
    silent = replace(instance("n1"), heartbeat=datetime(2026, 1, 1, tzinfo=UTC))
    found = status_of(runtime(), world(node("n1"), silent, node("n2", ready=False)))
    assert [(f.name, f.reason) for f in found.failing_nodes or ()] == [
        ("n1", "AgentSilent"),
        ("n2", "NodeNotReady"),
    ]
    assert found.ready_nodes == 0


def test_restarting_kubelet_is_still_ready() -> None:
    restarting = replace(node("n1", "runc", ready=False), since=NOW - timedelta(seconds=20))
    state = world(restarting, instance("n1", handlers=proven("runc")))
    found = status_of(runtime(), state)
    assert not found.failing_nodes
    assert (found.ready_nodes, condition(found, "Ready").status) == (1, "True")
    late = status(runtime(), state, plan(runtime(), state), NOW + timedelta(minutes=2))
    assert [f.reason for f in late.failing_nodes or ()] == ["NodeNotReady"]
    assert (late.ready_nodes, condition(late, "Ready").reason) == (0, "NodesFailing")


def test_agent_without_a_report_fails_after_five_minutes() -> None:
    state = world(node("n1"), instance("n1", phase=None))
    assert not status_of(runtime(), state).failing_nodes
    late = status(runtime(), state, plan(runtime(), state), NOW + timedelta(minutes=10))
    assert [f.reason for f in late.failing_nodes or ()] == ["NoAgent"]


def test_status_quotes_the_api_servers_refusal() -> None:
    found = status(runtime(), world(), plan(runtime(), world()), NOW, "daemonsets is\nforbidden")
    assert condition(found, "Degraded").reason == "Refused"
    assert condition(found, "Degraded").message == "the API server refused a request: daemonsets is forbidden"


def test_report_on_an_old_spec_does_not_count_as_ready() -> None:
    found = status_of(runtime(), world(node("n1"), instance("n1", generation=2)))
    assert (found.ready_nodes, found.updated_nodes) == (0, 0)
    assert condition(found, "Ready").reason == "Installing"
    assert condition(found, "Progressing").message == (
        f"1 of 1 nodes were given revision {found.update_revision}; waiting for nodes: n1"
    )


def test_status_names_conflicting_nodes_and_classes() -> None:
    claimed = status_of(runtime(), world(node("n1", claimed="x"), instance("n1", runtime_name="x")))
    assert condition(claimed, "Degraded").message == "n1: node n1 belongs to NodeRuntime x"
    foreign = status_of(runtime(), world(runtime_class(owner="x")))
    assert condition(foreign, "Degraded").reason == "RuntimeClassConflict"


def test_status_of_a_blocked_deletion_names_the_pods() -> None:
    state = world(node("n1", "runc"), instance("n1", handlers=proven("runc")), runtime_class(), pod())
    found = status_of(runtime(deleting=True), state)
    assert (found.desired_nodes, found.ready_nodes) == (1, 1)
    for kind in ("Ready", "Progressing"):
        assert condition(found, kind).reason == "PodsStillRunning"
        assert "default/user" in condition(found, kind).message


def test_transition_time_stays_while_the_status_stays() -> None:
    state = world(node("n1", "runc"), instance("n1", handlers=proven("runc")))
    old = Condition(
        type="Ready", status="True", last_transition_time="2025-01-01T00:00:00Z", reason="X", message=""
    )
    found = status_of(runtime(status=NodeRuntimeStatus(conditions=[old])), state)
    assert condition(found, "Ready").last_transition_time == "2025-01-01T00:00:00Z"
    assert condition(found, "Degraded").last_transition_time == "2026-01-02T00:00:00Z"


def test_status_computed_twice_is_the_same() -> None:
    state = world(node("n1", "runc"), instance("n1", handlers=proven("runc")))
    first = status_of(runtime(), state)
    again = NodeRuntimeStatus.model_validate(first.dump())
    assert status_of(runtime(status=again), state) == again
    assert not list(changed_conditions(again, first))


def test_changed_condition_becomes_an_event() -> None:
    state = world(node("n1"), instance("n1", "Failed"))
    found = status_of(runtime(), state)
    reasons = [c.reason for c in changed_conditions(NodeRuntimeStatus(), found)]
    assert reasons == ["TooFewNodes", "NodesFailing", "Failed"]
    posted = event(runtime(), condition(found, "Degraded"), NOW)
    assert posted["type"] == "Warning"
    assert posted["involvedObject"]["name"] == "rt"
