from __future__ import annotations

from dataclasses import replace

import pytest
from builders import instance, node, pod, proven, runtime, runtime_class, spec, world

from noderuntime_operator.api.names import HANDLER_LABEL_PREFIX, ORPHANED_LABEL, OWNER_LABEL
from noderuntime_operator.rollout import nodes_to_search, plan

RUNC_LABEL = HANDLER_LABEL_PREFIX + "runc"


def test_plan_creates_an_instance_for_a_selected_node() -> None:
    found = plan(runtime(), world(node("n1", claimed=None), node("n2", claimed=None, pool="b")))
    assert found.selected == {"n1"}
    assert list(found.create) == ["n1"]
    assert found.create["n1"].state == "Installed"
    assert not found.labels


def test_plan_claims_a_node_with_an_instance() -> None:
    found = plan(runtime(), world(node("n1", claimed=None), instance("n1", phase=None)))
    assert found.labels == {"n1": {OWNER_LABEL: "rt"}}


def test_handler_label_of_an_unclaimed_node_is_removed() -> None:
    new = world(node("n1", "runc", claimed=None), instance("n1", phase=None))
    assert plan(runtime(), new).labels == {"n1": {RUNC_LABEL: None, OWNER_LABEL: "rt"}}
    proof = world(node("n1", "runc", claimed=None), instance("n1", handlers=proven("runc")))
    assert plan(runtime(), proof).labels == {"n1": {OWNER_LABEL: "rt"}}


@pytest.mark.parametrize("known", [True, False], ids=["with an instance", "without"])
def test_label_that_another_client_set_proves_nothing(known: bool) -> None:
    preset = replace(node("n1", "runc"), foreign_handlers=frozenset({"runc"}))
    silent = [instance("n1", phase=None)] if known else []
    assert plan(runtime(), world(preset, *silent)).labels == {"n1": {RUNC_LABEL: None}}
    ready = instance("n1", handlers=proven("runc"))
    assert plan(runtime(), world(preset, ready)).labels == {"n1": {RUNC_LABEL: None}}
    assert plan(runtime(), world(node("n1"), ready)).labels == {"n1": {RUNC_LABEL: "true"}}


def test_proven_handler_keeps_its_label_while_it_fails() -> None:
    ready = instance("n1", handlers=proven("runc"))
    assert plan(runtime(), world(node("n1"), ready)).labels == {"n1": {RUNC_LABEL: "true"}}
    broken = instance("n1", "Degraded", handlers=proven("runc", state="Broken"))
    assert plan(runtime(), world(node("n1"), broken)).labels == {}
    assert plan(runtime(), world(node("n1", "runc"), broken)).labels == {}


def test_plan_of_a_settled_cluster_is_empty() -> None:
    state = world(node("n1", "runc"), instance("n1", handlers=proven("runc")), runtime_class())
    found = plan(runtime(), state)
    assert not nodes_to_search(runtime(), state)
    assert (found.create, found.update, found.labels) == ({}, {}, {})
    assert not found.delete_classes
    assert not found.waiting


def test_plan_changes_at_most_max_unavailable_nodes() -> None:
    nodes = [node(f"n{i}", claimed=None) for i in range(4)]
    found = plan(runtime(spec(limit=2)), world(*nodes))
    assert list(found.create) == ["n0", "n1"]
    assert found.waiting == {"n2", "n3"}
    moving = instance("n0", "Installing")
    assert list(plan(runtime(spec(limit=2)), world(*nodes, moving)).create) == ["n1"]


@pytest.mark.parametrize("phase", ["Failed", "Degraded"])
def test_failed_node_stops_the_rollout(phase: str) -> None:
    state = world(node("n1"), node("n2", claimed=None), instance("n1", phase))
    assert plan(runtime(), state).create == {}
    tolerant = runtime(spec(update={"maxFailures": 1}))
    assert list(plan(tolerant, state).create) == ["n2"]


def test_changed_spec_goes_first_to_nodes_already_changing() -> None:
    changed = runtime(spec(kubelet={"mode": "Manual"}))
    state = world(node("n1"), node("n2"), instance("n1"), instance("n2", "Failed"))
    assert list(plan(changed, state).update) == ["n2"]
    unobserved = world(node("n1"), node("n2"), instance("n1"), instance("n2", generation=2))
    assert list(plan(changed, unobserved).update) == ["n2"]


def test_node_not_ready_is_not_started_and_is_updated_last() -> None:
    assert plan(runtime(), world(node("n1", claimed=None, ready=False))).create == {}
    changed = runtime(spec(kubelet={"mode": "Manual"}))
    state = world(node("n1", ready=False), node("n2"), instance("n1"), instance("n2"))
    assert list(plan(changed, state).update) == ["n2"]


def test_instance_of_a_node_that_was_created_again_is_deleted() -> None:
    old = replace(instance("n1", handlers=proven("runc")), node_uid="uid-before")
    found = plan(runtime(), world(node("n1", claimed=None), old))
    assert (found.delete_instances, found.create, found.labels) == (("n1",), {}, {})
    found = plan(runtime(deleting=True), world(node("n1", claimed=None), old, daemon_set=True))
    assert (found.delete_instances, found.update, found.finished) == (("n1",), {}, False)
    same = replace(old, node_uid="uid-n1")
    assert plan(runtime(), world(node("n1"), same)).delete_instances == ()


@pytest.mark.parametrize("deleting", [True, False])
def test_claim_that_was_lost_during_a_removal_is_restored(deleting: bool) -> None:
    """An operator that died after it gave a node up had removed the claim; then the node came back."""
    back = world(node("n1", claimed=None, pool="b"), instance("n1", "Removing", state="Removed"))
    labels = {OWNER_LABEL: "rt", ORPHANED_LABEL: None}
    assert plan(runtime(deleting=deleting), back).labels == {"n1": labels}
    never = world(node("n1", claimed=None, pool="b"), instance("n1", phase=None))
    assert plan(runtime(deleting=deleting), never).labels == {}


def test_node_of_another_noderuntime_is_a_conflict() -> None:
    state = world(
        node("n1", claimed="other"), instance("n1", runtime_name="other"), node("n2", claimed="third")
    )
    found = plan(runtime(), state)
    assert found.conflicts == {"n1": "other", "n2": "third"}
    assert not found.create
    assert not found.labels


def test_foreign_runtime_class_is_reported_and_not_deleted() -> None:
    found = plan(runtime(), world(runtime_class(owner=None)))
    assert found.foreign_classes == ("runc",)
    assert not found.delete_classes


def test_deselected_node_is_removed_in_steps() -> None:
    left = instance("n1", handlers=proven("runc"))
    held = plan(runtime(), world(node("n1", "runc", pool="b"), left, runtime_class(), pod()))
    assert (held.holding, held.labels, held.update) == ((pod(),), {}, {})

    unlabelled = plan(runtime(), world(node("n1", "runc", pool="b"), left, runtime_class()))
    assert unlabelled.labels == {"n1": {RUNC_LABEL: None}}
    assert not unlabelled.update

    instructed = plan(runtime(), world(node("n1", pool="b"), left, runtime_class()))
    assert instructed.update["n1"].state == "Removed"

    going = instance("n1", "Removing", state="Removed")
    assert not plan(runtime(), world(node("n1", pool="b"), going)).delete_instances

    gone = instance("n1", "Removed", state="Removed")
    freed = plan(runtime(), world(node("n1", pool="b"), gone))
    assert (freed.labels, freed.delete_instances) == ({"n1": {OWNER_LABEL: None}}, ())

    unclaimed = plan(runtime(), world(node("n1", pool="b", claimed=None), gone))
    assert (unclaimed.labels, unclaimed.delete_instances) == ({}, ("n1",))


def test_pod_scheduled_meanwhile_restores_the_labels() -> None:
    left = instance("n1", handlers=proven("runc"))
    found = plan(runtime(), world(node("n1", pool="b"), left, runtime_class(), pod()))
    assert found.labels == {"n1": {RUNC_LABEL: "true"}}
    assert not found.update


def test_removed_node_selected_again_is_installed_again() -> None:
    found = plan(runtime(), world(node("n1"), instance("n1", "Removed", state="Removed")))
    assert found.update["n1"].state == "Installed"
    assert not found.delete_instances


def test_handler_is_removed_when_no_pod_uses_it() -> None:
    two = instance("n1", of=spec("runc", "gvisor"), handlers=proven("runc", "gvisor"))
    classes = (runtime_class(), runtime_class("gvisor", "gvisor"))
    labelled = node("n1", "runc", "gvisor")
    user = pod(of="gvisor")
    assert nodes_to_search(runtime(), world(labelled, two, *classes)) == {"n1"}

    held = plan(runtime(), world(labelled, two, *classes, user))
    assert held.holding == (user,)
    assert (held.update, held.labels, held.delete_classes) == ({}, {}, ())

    free = plan(runtime(), world(labelled, two, *classes))
    assert [handler.name for handler in free.update["n1"].handlers] == ["runc"]
    assert free.labels == {"n1": {HANDLER_LABEL_PREFIX + "gvisor": None}}
    assert free.delete_classes == ("gvisor",)


def test_pods_of_any_runtime_class_block_the_deletion() -> None:
    state = world(
        node("n1", "runc"),
        instance("n1", handlers=proven("runc")),
        runtime_class(),
        runtime_class("mine", "runc", owner=None),
        pod(of="mine"),
        pod("elsewhere", on="n9"),
    )
    found = plan(runtime(deleting=True), state)
    assert found.holding == (pod(of="mine"),)
    assert found.serve
    assert (found.update, found.delete_classes, found.labels) == ({}, (), {})


def test_deletion_removes_everything_in_order() -> None:
    going = runtime(deleting=True)
    left = instance("n1", handlers=proven("runc"))
    first = plan(going, world(node("n1", "runc"), left, runtime_class(), daemon_set=True))
    assert first.delete_classes == ("runc",)
    assert first.labels == {"n1": {RUNC_LABEL: None}}
    assert (first.serve, first.update, first.finished) == (False, {}, False)

    gone = instance("n1", "Removed", state="Removed")
    freed = plan(going, world(node("n1"), gone, daemon_set=True))
    assert (freed.labels, freed.delete_instances) == ({"n1": {OWNER_LABEL: None}}, ())

    last = plan(going, world(node("n1", claimed=None), gone, daemon_set=True))
    assert last.delete_instances == ("n1",)
    assert not last.delete_daemon_set

    agents = plan(going, world(node("n1", claimed=None), daemon_set=True))
    assert agents.delete_daemon_set
    assert not agents.finished
    assert plan(going, world(node("n1", claimed=None))).finished


def test_deletion_does_not_wait_for_an_agent_that_never_ran() -> None:
    never = instance("n1", phase=None, state="Removed")
    assert plan(runtime(deleting=True), world(node("n1"), never)).labels == {"n1": {OWNER_LABEL: None}}


def test_deletion_includes_nodes_that_are_not_ready() -> None:
    found = plan(runtime(deleting=True), world(node("n1", ready=False), instance("n1", "Failed")))
    assert found.update["n1"].state == "Removed"


def test_lost_instance_of_a_selected_node_is_restored() -> None:
    found = plan(runtime(), world(node("n1", "runc"), runtime_class()))
    assert (found.update["n1"].state, found.labels) == ("Installed", {})


@pytest.mark.parametrize("deleting", [True, False])
def test_lost_instances_are_no_sign_of_a_removed_node(deleting: bool) -> None:
    wanted = runtime(deleting=deleting)
    pool = "a" if deleting else "b"
    held = plan(wanted, world(node("n1", "runc", pool=pool), runtime_class(), pod(), daemon_set=True))
    assert (held.labels, held.holding) == ({}, (pod(),))
    assert (held.delete_classes, held.delete_daemon_set, held.finished) == ((), False, False)

    unused = plan(wanted, world(node("n1", "runc", pool=pool), runtime_class(), daemon_set=True))
    assert unused.labels == {"n1": {RUNC_LABEL: None}}
    assert (unused.delete_daemon_set, unused.finished) == (False, False)

    restored = plan(wanted, world(node("n1", pool=pool), daemon_set=True))
    assert (restored.update["n1"].state, restored.labels) == ("Removed", {})
    assert (restored.delete_daemon_set, restored.finished) == (False, False)


def test_restored_instance_waits_for_the_agents_report() -> None:
    unreported = replace(instance("n1", phase=None, state="Removed"), restored=True)
    found = plan(runtime(deleting=True), world(node("n1"), unreported, daemon_set=True))
    assert (found.labels, found.delete_instances) == ({}, ())
    reported = replace(instance("n1", phase="Removed", state="Removed"), restored=True)
    found = plan(runtime(deleting=True), world(node("n1"), reported, daemon_set=True))
    assert found.labels == {"n1": {OWNER_LABEL: None}}


def test_instances_without_known_nodes_block_a_deletions_end() -> None:
    found = plan(runtime(deleting=True), world(instance("n1"), daemon_set=True))
    assert (found.delete_daemon_set, found.finished) == (False, False)
