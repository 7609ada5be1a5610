"""Changes of kubelet.mode: two runtimes must never run one pod."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from builders import instance, node, pod, proven, runtime, runtime_class, spec, world

from noderuntime_operator.api.names import HANDLER_LABEL_PREFIX
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import ClusterState, InstanceView, RuntimeView
from noderuntime_operator.rollout import nodes_to_search, plan
from noderuntime_operator.status import status

RUNC_LABEL = HANDLER_LABEL_PREFIX + "runc"
MANUAL = spec(kubelet={"mode": "Manual"})
ELSEWHERE = {"state": "Upstream"}


def ready(name: str = "n1", **more: Any) -> InstanceView:
    return instance(name, handlers=proven("runc"), **more)


def condition(wanted: RuntimeView, state: ClusterState, kind: str) -> tuple[str, str, str]:
    found: NodeRuntimeStatus = status(wanted, state, plan(wanted, state), datetime(2026, 1, 2, tzinfo=UTC))
    (only,) = [c for c in found.conditions or () if c.type == kind]
    return only.status, only.reason, only.message


def test_mode_change_waits_for_pods_and_names_them() -> None:
    state = world(node("n1", "runc"), ready(), runtime_class(), pod())
    assert nodes_to_search(runtime(MANUAL), state) == {"n1"}
    found = plan(runtime(MANUAL), state)
    assert (found.update, found.labels, found.holding) == ({}, {}, (pod(),))
    message = (
        "kubelet.mode Manual is not applied to nodes with such pods (n1): 1 pods still use handlers of"
        " this NodeRuntime; delete them first: default/user"
    )
    assert condition(runtime(MANUAL), state, "Progressing") == ("True", "PodsStillRunning", message)
    assert condition(runtime(MANUAL), state, "Ready") == ("False", "PodsStillRunning", message)


def test_mode_change_back_to_delegate_waits_for_pods() -> None:
    state = world(node("n1"), ready(of=MANUAL), runtime_class(), pod())
    assert plan(runtime(), state).update == {}
    assert plan(runtime(), state).mode_held == {"n1"}


def test_mode_change_names_at_most_ten_pods() -> None:
    pods = [pod(f"user-{i:02}") for i in range(12)]
    state = world(node("n1", "runc"), ready(), runtime_class(), *pods)
    message = condition(runtime(MANUAL), state, "Progressing")[2]
    assert message.endswith("default/user-09 and 2 more")


def test_held_node_gets_the_other_changes_of_the_spec() -> None:
    wanted = runtime(spec("runc", "gvisor", kubelet={"mode": "Manual"}))
    found = plan(wanted, world(node("n1", "runc"), ready(), runtime_class(), pod()))
    assert [handler.name for handler in found.update["n1"].handlers] == ["runc", "gvisor"]
    assert found.update["n1"].kubelet.mode == "Delegate"


def test_mode_changes_after_the_handler_labels_are_removed() -> None:
    first = world(node("n1", "runc"), ready(), runtime_class())
    found = plan(runtime(MANUAL), first)
    assert (found.update, found.labels) == ({}, {"n1": {RUNC_LABEL: None}})
    assert condition(runtime(MANUAL), first, "Ready")[:2] == ("False", "Installing")

    found = plan(runtime(MANUAL), world(node("n1"), ready(), runtime_class()))
    assert (found.update["n1"].kubelet.mode, found.labels) == ("Manual", {})

    # The report is still about the old mode.
    written = ready(of=MANUAL, generation=2)
    assert plan(runtime(MANUAL), world(node("n1"), written, runtime_class())).labels == {}


def test_pod_scheduled_before_a_mode_change_restores_the_labels() -> None:
    found = plan(runtime(MANUAL), world(node("n1"), ready(), runtime_class(), pod()))
    assert (found.update, found.labels) == ({}, {"n1": {RUNC_LABEL: "true"}})


def test_mode_change_takes_labels_from_max_unavailable_nodes() -> None:
    nodes = [node(f"n{i}", "runc") for i in range(3)]
    state = world(*nodes, *(ready(f"n{i}") for i in range(3)), runtime_class())
    found = plan(runtime(MANUAL), state)
    assert (found.labels, found.waiting) == ({"n0": {RUNC_LABEL: None}}, {"n1", "n2"})


def test_node_with_its_kubelet_elsewhere_offers_no_handler() -> None:
    settled = ready(of=MANUAL, kubelet=ELSEWHERE)
    assert plan(runtime(MANUAL), world(node("n1"), settled)).labels == {}
    assert plan(runtime(MANUAL), world(node("n1", "runc"), settled)).labels == {"n1": {RUNC_LABEL: None}}
    by_hand = ready(of=MANUAL, kubelet={"state": "Noderuntime"})
    assert plan(runtime(MANUAL), world(node("n1"), by_hand)).labels == {"n1": {RUNC_LABEL: "true"}}


def test_reverted_switch_takes_the_handler_labels_away() -> None:
    reverted = instance("n1", "Failed", kubelet=ELSEWHERE)
    assert plan(runtime(), world(node("n1", "runc"), reverted)).labels == {"n1": {RUNC_LABEL: None}}
    switching = instance("n1", "Switching", kubelet=ELSEWHERE)
    assert plan(runtime(), world(node("n1", "runc"), switching)).labels == {}


def test_ready_in_manual_names_nodes_whose_kubelet_is_elsewhere() -> None:
    state = world(node("n1"), ready(of=MANUAL, kubelet=ELSEWHERE))
    assert condition(runtime(MANUAL), state, "Ready") == (
        "True",
        "SocketServed",
        "1 of 1 nodes serve noderuntime's socket; RuntimeClasses are not offered on 1 nodes, because their"
        " kubelet uses another runtime: n1",
    )


def test_foreign_class_of_a_handler_degrades_without_its_label() -> None:
    foreign = runtime_class("fast", "runc", owner=None)
    state = world(node("n1", "runc"), ready(), runtime_class(), foreign)
    assert plan(runtime(), state).unbound_classes == ("fast",)
    degraded = condition(runtime(), state, "Degraded")
    assert degraded[:2] == ("True", "RuntimeClassConflict")
    assert degraded[2].startswith("RuntimeClass fast uses a handler of this NodeRuntime")
    assert condition(runtime(), state, "Ready")[0] == "True"

    bound = runtime_class("fast", "runc", owner=None, selects=(RUNC_LABEL,))
    other = runtime_class("other", "runc", owner="rt2")
    assert plan(runtime(), world(node("n1", "runc"), ready(), bound, other)).unbound_classes == ()


def test_nodes_that_wait_for_a_change_are_not_up_to_date() -> None:
    nodes = [node(f"n{i}", "runc") for i in range(2)]
    state = world(*nodes, *(ready(f"n{i}") for i in range(2)), runtime_class())
    wanted = runtime(spec("runc", "gvisor"))
    found = status(wanted, state, plan(wanted, state), datetime(2026, 1, 2, tzinfo=UTC))
    assert (found.updated_nodes, found.ready_nodes) == (0, 0)
