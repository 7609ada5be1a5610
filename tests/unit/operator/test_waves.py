"""Whole rollouts on a fleet in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from fleet import Fleet
from hypothesis import given, settings
from hypothesis import strategies as st

from noderuntime_operator.api.instance import InstanceSpec
from noderuntime_operator.api.names import HANDLER_LABEL_PREFIX, ORPHANED_LABEL, OWNER_LABEL, SKIP_LABEL
from noderuntime_operator.cluster_state import AgentPodView
from noderuntime_operator.rollout import plan


def v2_fails(name: str, wanted: InstanceSpec) -> bool:
    return wanted.image == "v2"


def upgrade(fleet: Fleet, image: str = "v2") -> None:
    fleet.image = image


def test_good_revision_reaches_all_nodes_and_becomes_current() -> None:
    fleet = Fleet.of(5, maxUnavailable=2)
    old = fleet.status.current_revision
    upgrade(fleet)
    fleet.settle()
    assert fleet.images() == ["v2"] * 5
    assert fleet.pods == {f"n{i}": "v2" for i in range(5)}
    assert fleet.log == ["Rolling", "Complete"]
    assert fleet.most_moving == 2
    assert fleet.status.current_revision == fleet.status.update_revision != old
    assert [fleet.condition(kind)[:2] for kind in ("Ready", "Available", "Progressing", "RolledBack")] == [
        ("True", "AllNodesReady"),
        ("True", "EnoughNodes"),
        ("False", "Complete"),
        ("False", "SpecApplied"),
    ]
    assert [(v.version, v.image, v.nodes) for v in fleet.status.versions or ()] == [("v2", "v2", 5)]


@pytest.mark.parametrize(("limit", "moving"), [("10%", 1), ("40%", 4), ("41%", 5), (3, 3), ("100%", 10)])
def test_budget_is_a_number_or_a_percentage_rounded_up(limit: str | int, moving: int) -> None:
    fleet = Fleet.of(10, maxUnavailable=limit)
    upgrade(fleet)
    fleet.settle()
    assert (fleet.most_moving, fleet.images()) == (moving, ["v2"] * 10)


def test_canaries_change_first_and_soak() -> None:
    fleet = Fleet.of(6, maxUnavailable=6, canary={"nodes": 2, "soakSeconds": 120})
    upgrade(fleet)
    fleet.step()
    assert fleet.images() == ["v2"] * 2 + ["v1"] * 4
    assert fleet.condition("Progressing")[2].endswith("waiting for canaries: n0, n1")
    while fleet.log[-1] == "Canary":
        fleet.step()
    began = fleet.now
    assert fleet.images() == ["v2"] * 2 + ["v1"] * 4
    assert fleet.condition("Progressing")[:2] == ("True", "Soaking")
    while fleet.log[-1] == "Soaking":
        fleet.step()
    assert timedelta(seconds=110) <= fleet.now - began <= timedelta(seconds=130)
    fleet.settle()
    assert fleet.log == ["Canary", "Soaking", "Rolling", "Complete"]
    assert fleet.images() == ["v2"] * 6


def test_canaries_are_selected_by_label() -> None:
    fleet = Fleet.of(3, canary={"selector": {"matchLabels": {"canary": "yes"}}, "soakSeconds": 60})
    upgrade(fleet)
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v1"] * 3, ["Canary"])
    assert "a Ready node that update.canary.selector matches" in fleet.condition("Progressing")[2]
    fleet.label("n2", {"canary": "yes"})
    fleet.step()
    assert fleet.images() == ["v1", "v1", "v2"]
    fleet.settle()
    assert fleet.images() == ["v2"] * 3


def test_bad_canary_rolls_back_and_no_other_node_changes() -> None:
    fleet = Fleet.of(4, maxUnavailable=4, canary={"nodes": 1})
    good = fleet.status.current_revision
    fleet.bad = v2_fails
    upgrade(fleet)
    while not fleet.status.failed_revision:
        fleet.step()
    assert fleet.images() == ["v2", "v1", "v1", "v1"]
    fleet.settle()
    assert fleet.images() == ["v1"] * 4
    assert fleet.pods == {f"n{i}": "v1" for i in range(4)}
    assert (fleet.status.current_revision, fleet.status.update_revision) == (good, good)
    state, reason, message = fleet.condition("RolledBack")
    assert (state, reason) == ("True", "RolloutFailed")
    assert (
        f"the nodes get revision {good}: 1 nodes failed, and update.maxFailures allows 0: n0; n0:" in message
    )
    assert fleet.condition("Ready")[:2] == ("False", "RolledBack")
    assert fleet.condition("Available")[0] == "True"


def test_bad_third_wave_rolls_all_nodes_back() -> None:
    fleet = Fleet.of(8, maxUnavailable=2)
    fleet.bad = lambda name, wanted: wanted.image == "v2" and name in ("n4", "n5")
    upgrade(fleet)
    fleet.settle()
    assert fleet.images() == ["v1"] * 8
    assert fleet.log == ["Rolling", "Stopped", "Rolling", "Complete"]
    assert fleet.most_moving == 2
    assert fleet.condition("RolledBack")[0] == "True"


def test_failed_revision_is_retried_after_a_change_or_on_request() -> None:
    fleet = Fleet.of(2)
    fleet.bad = v2_fails
    upgrade(fleet)
    fleet.settle()
    assert fleet.images() == ["v1", "v1"]
    upgrade(fleet, "v3")
    fleet.settle()
    assert (fleet.images(), fleet.condition("RolledBack")[0]) == (["v3", "v3"], "False")

    upgrade(fleet)
    fleet.settle()
    assert fleet.images() == ["v3", "v3"]
    fleet.bad = lambda _name, _spec: False
    fleet.settle()
    assert fleet.images() == ["v3", "v3"]
    fleet.runtime = replace(fleet.runtime, retry="now")
    fleet.settle()
    assert fleet.images() == ["v2", "v2"]


@pytest.mark.parametrize("cause", ["revision deleted", "rollback Never"])
def test_failed_revision_is_not_tried_again_without_a_good_one(cause: str) -> None:
    fleet = Fleet.of(4)
    fleet.bad = v2_fails
    upgrade(fleet)
    fleet.settle()
    assert fleet.images() == ["v1"] * 4
    if cause == "revision deleted":
        del fleet.revisions[fleet.status.current_revision or ""]
    else:
        fleet.update(rollback="Never")
    fleet.settle()
    assert fleet.images() == ["v1"] * 4
    assert "failed before; it is tried again when" in fleet.condition("Progressing")[2]
    fleet.runtime = replace(fleet.runtime, retry="again")
    fleet.bad = lambda _name, _wanted: False
    fleet.settle()
    assert fleet.images() == ["v2"] * 4


def test_revision_of_the_spec_is_not_read_from_the_history() -> None:
    fleet = Fleet.of(1)
    for name, known in fleet.revisions.items():
        edited = known.revision.model_copy(update={"image": "other"})
        fleet.revisions[name] = replace(known, revision=edited)
    fleet.settle()
    assert fleet.images() == ["v1"]


def test_rollout_without_rollback_only_stops() -> None:
    fleet = Fleet.of(4, rollback="Never")
    fleet.bad = v2_fails
    upgrade(fleet)
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v2", "v1", "v1", "v1"], ["Rolling", "Stopped"])
    state, reason, message = fleet.condition("Progressing")
    assert (state, reason) == ("False", "Stopped")
    assert "1 nodes failed, and update.maxFailures allows 0: n0" in message
    fleet.bad = lambda _name, _spec: False
    fleet.runtime = replace(fleet.runtime, retry="now")
    healed = fleet.instances["n0"]
    fleet.step()
    assert fleet.instances["n0"].retry == "now"
    assert fleet.instances["n0"].generation == healed.generation
    fleet.settle()
    assert fleet.images() == ["v2"] * 4


def test_first_installation_has_nothing_to_go_back_to() -> None:
    fleet = Fleet()
    fleet.bad = lambda _name, _spec: True
    for name in ("n0", "n1"):
        fleet.add(name)
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v1"], ["Rolling", "Stopped"])
    assert fleet.condition("RolledBack")[0] == "False"


def test_failures_within_the_limit_do_not_hold_up_the_others() -> None:
    fleet = Fleet.of(5, maxUnavailable=1, maxFailures="40%")
    fleet.bad = lambda name, wanted: wanted.image == "v2" and name in ("n0", "n3")
    upgrade(fleet)
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v2"] * 5, ["Rolling", "Complete"])
    assert fleet.status.wave
    assert (fleet.status.wave.ready, fleet.status.wave.failed) == (3, 2)


@pytest.mark.parametrize(("count", "rolled_back"), [(1, True), (3, True), (10, False)])
def test_percentage_of_failures_is_rounded_down(count: int, rolled_back: bool) -> None:
    fleet = Fleet.of(count, maxFailures="10%", maxUnavailable=1)
    fleet.bad = lambda name, wanted: wanted.image == "v2" and name == "n0"
    upgrade(fleet)
    fleet.settle()
    assert fleet.images() == ["v1" if rolled_back else "v2"] * count


def test_node_that_failed_before_is_no_failure_of_the_revision() -> None:
    fleet = Fleet.of(3)
    fleet.bad = lambda name, _spec: name == "n1"
    fleet.instances["n1"] = replace(
        fleet.instances["n1"],
        status=fleet.instances["n1"].status.model_copy(update={"phase": "Failed"}),
    )
    upgrade(fleet)
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v2"] * 3, ["Rolling", "Complete"])
    assert fleet.condition("RolledBack")[0] == "False"
    assert fleet.condition("Degraded")[0] == "True"


def test_dead_node_is_outside_and_caught_up_when_it_returns() -> None:
    fleet = Fleet.of(3)
    fleet.set("n0", ready=False)
    upgrade(fleet)
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v1", "v2", "v2"], ["Rolling", "Complete"])
    assert [(o.name, o.reason) for o in fleet.status.outside_nodes or ()] == [("n0", "NotReady")]
    assert fleet.condition("Progressing")[2].endswith("left out for now: n0 (NotReady)")
    upgrade(fleet, "v3")
    fleet.settle()
    fleet.set("n0", ready=True)
    fleet.settle()
    assert (fleet.images(), fleet.status.outside_nodes) == (["v3"] * 3, [])


def test_node_that_dies_in_its_wave_does_not_hold_up_the_others() -> None:
    fleet = Fleet.of(3, maxUnavailable=1)
    upgrade(fleet)
    fleet.step()
    fleet.set("n0", ready=False)
    fleet.settle()
    assert (fleet.images(), fleet.log[-1]) == (["v2"] * 3, "Complete")
    assert fleet.condition("RolledBack")[0] == "False"
    fleet.set("n0", ready=True)
    fleet.settle()
    assert fleet.instances["n0"].observed


def test_node_that_returns_in_mid_rollout_has_the_whole_time_for_its_change() -> None:
    fleet = Fleet.of(3, maxUnavailable=1)
    upgrade(fleet)
    fleet.step()
    fleet.set("n0", ready=False)
    fleet.update(paused=True)
    fleet.now += timedelta(hours=1)
    fleet.step()
    fleet.set("n0", ready=True)
    assert plan(fleet.runtime, fleet.cluster()).late == {}
    fleet.now += timedelta(minutes=13)
    todo = plan(fleet.runtime, fleet.cluster())
    assert todo.late == {"n0": "the node did not finish its change within 13 minutes"}


def test_outage_of_the_api_server_makes_no_node_late() -> None:
    fleet = Fleet.of(3, maxUnavailable=1)
    upgrade(fleet)
    fleet.step()
    fleet.now += timedelta(hours=1)
    state, hour = fleet.cluster(), timedelta(hours=1)
    assert plan(fleet.runtime, state).late
    for began, late in ((58, False), (30, True)):
        outage = (fleet.now - timedelta(minutes=began), fleet.now)
        assert bool(plan(fleet.runtime, replace(state, outage=outage)).late) is late
    before = (fleet.now - 3 * hour, fleet.now - 2 * hour)
    assert plan(fleet.runtime, replace(state, outage=before)).late


def test_skipped_and_cordoned_nodes_are_outside_and_named() -> None:
    fleet = Fleet.of(3)
    fleet.label("n0", {SKIP_LABEL: ""})
    fleet.set("n1", unschedulable=True)
    upgrade(fleet)
    fleet.settle()
    assert fleet.images() == ["v1", "v1", "v2"]
    named = [(o.name, o.reason) for o in fleet.status.outside_nodes or ()]
    assert named == [("n0", "Skipped"), ("n1", "Cordoned")]
    fleet.label("n0", {SKIP_LABEL: None})
    fleet.set("n1", unschedulable=False)
    fleet.settle()
    assert fleet.images() == ["v2"] * 3


def test_nodes_that_are_cordoned_because_they_broke_are_failures() -> None:
    fleet = Fleet.of(4, rollback="Never")
    fleet.bad = v2_fails
    upgrade(fleet)
    for _ in range(20):
        fleet.step()
        for name, instance in fleet.instances.items():
            if instance.status.phase == "Failed":
                fleet.set(name, unschedulable=True)
    assert fleet.images() == ["v2", "v1", "v1", "v1"]


def test_paused_rollout_takes_no_node_and_says_so() -> None:
    fleet = Fleet.of(4, maxUnavailable=1)
    upgrade(fleet)
    while fleet.images().count("v2") < 2:
        fleet.step()
    fleet.update(paused=True)
    fleet.settle()
    assert fleet.images() == ["v2", "v2", "v1", "v1"]
    assert fleet.condition("Progressing") == (
        "False",
        "Paused",
        f"2 of 4 nodes were given revision {fleet.status.update_revision};"
        " waiting for spec.update.paused to be false",
    )
    fleet.update(paused=False)
    fleet.settle()
    assert fleet.images() == ["v2"] * 4


def test_new_node_does_not_wait_for_canaries() -> None:
    fleet = Fleet.of(3, maxUnavailable=2, canary={"nodes": 1, "soakSeconds": 3600})
    upgrade(fleet)
    while fleet.log[-1:] != ["Soaking"]:
        fleet.step()
    fleet.add("n9")
    fleet.step()
    assert fleet.images() == ["v2", "v1", "v1", "v2"]


def test_image_that_cannot_be_pulled_rolls_back() -> None:
    fleet = Fleet.of(3)
    fleet.missing = frozenset({"v2"})
    upgrade(fleet)
    fleet.settle()
    assert (fleet.images(), fleet.pods) == (["v1"] * 3, {f"n{i}": "v1" for i in range(3)})
    assert "the image v2 of the agent cannot be pulled" in fleet.condition("RolledBack")[2]
    assert all(instance.observed for instance in fleet.instances.values())


def test_agent_that_never_reports_fails_after_its_deadline() -> None:
    fleet = Fleet.of(2)
    upgrade(fleet)
    fleet.step()
    stuck = fleet.now
    fleet.pods["n0"] = "hangs"
    todo = plan(fleet.runtime, fleet.cluster())
    assert ([pod.node for pod in todo.replace], todo.late) == (["n0"], {})
    fleet.now = stuck + timedelta(minutes=20)
    todo = plan(fleet.runtime, fleet.cluster())
    assert todo.late == {"n0": "the node did not finish its change within 20 minutes"}
    assert todo.failed_revision


def test_pod_created_early_waits_for_its_nodes_turn() -> None:
    fleet = Fleet.of(3, maxUnavailable=1)
    upgrade(fleet)
    fleet.step()
    fleet.pods.pop("n2")
    fleet.step()
    assert (fleet.pods["n2"], fleet.instances["n2"].spec.image) == ("v2", "v1")
    fleet.settle()
    assert fleet.images() == ["v2"] * 3


def test_pod_that_the_template_cannot_replace_is_kept() -> None:
    fleet = Fleet.of(2, maxUnavailable=1)
    upgrade(fleet)
    fleet.step()
    fleet.update(paused=True)
    upgrade(fleet, "v3")
    fleet.pods["n0"] = "v3"
    fleet.step()
    fleet.step()
    assert (fleet.pods["n0"], fleet.instances["n0"].spec.image) == ("v3", "v2")
    assert plan(fleet.runtime, fleet.cluster()).replace == ()
    fleet.update(paused=False)
    fleet.settle()
    assert fleet.images() == ["v3"] * 2


def test_annotation_rolls_back_until_it_is_removed() -> None:
    fleet = Fleet.of(2, canary={"nodes": 1, "soakSeconds": 60})
    first = fleet.status.current_revision or ""
    upgrade(fleet)
    fleet.settle()
    second = fleet.status.current_revision
    fleet.runtime = replace(fleet.runtime, rollback_to=first)
    fleet.settle()
    assert (fleet.images(), fleet.condition("RolledBack")[:2]) == (["v1", "v1"], ("True", "Requested"))
    fleet.runtime = replace(fleet.runtime, rollback_to="unknown")
    fleet.settle()
    assert fleet.images() == ["v1", "v1"]
    assert fleet.condition("Degraded")[1] == "UnknownRevision"
    fleet.runtime = replace(fleet.runtime, rollback_to="")
    fleet.settle()
    assert (fleet.images(), fleet.status.current_revision) == (["v2", "v2"], second)


def test_rollback_restores_the_spec_as_well() -> None:
    fleet = Fleet.of(2)
    fleet.bad = lambda _name, wanted: len(wanted.handlers) > 1
    fleet.change(handlers=[{"name": "runc", "type": "Runc"}, {"name": "gvisor", "type": "GVisor"}])
    fleet.settle()
    assert [[h.name for h in i.spec.handlers] for i in fleet.instances.values()] == [["runc"], ["runc"]]
    assert fleet.condition("Available")[0] == "True"
    assert [handler.name for handler in plan(fleet.runtime, fleet.cluster()).handlers] == ["runc"]


def test_operator_that_dies_at_every_step_goes_on() -> None:
    for died in range(40):
        fleet = Fleet.of(5, maxUnavailable=2, canary={"nodes": 1, "soakSeconds": 20})
        fleet.bad = lambda name, wanted: wanted.image == "v2" and name == "n3"
        upgrade(fleet)
        for index in range(40):
            fleet.step(lose_status=index == died)
        fleet.settle()
        assert fleet.images() == ["v1"] * 5, died
        assert fleet.condition("RolledBack")[0] == "True"
        assert fleet.most_moving <= 2


def test_deletion_in_the_middle_of_a_wave_removes_everything() -> None:
    for steps in range(8):
        fleet = Fleet.of(4, maxUnavailable=2)
        upgrade(fleet)
        for _ in range(steps):
            fleet.step()
        fleet.runtime = replace(fleet.runtime, deleting=True)
        fleet.settle()
        assert (fleet.instances, fleet.template, fleet.runtime.finalizers) == ({}, None, ())
        assert [set(node.labels) for node in fleet.nodes.values()] == [{"pool"}] * 4
        assert fleet.most_moving <= 2


def test_deletion_of_a_rolled_back_runtime_keeps_the_good_image() -> None:
    fleet = Fleet.of(2)
    fleet.bad = v2_fails
    upgrade(fleet)
    fleet.settle()
    fleet.runtime = replace(fleet.runtime, deleting=True)
    fleet.step()
    assert plan(fleet.runtime, fleet.cluster()).target.revision.image == "v1"


def test_unreachable_node_is_orphaned_after_its_time() -> None:
    fleet = Fleet.of(2)
    fleet.set("n0", ready=False)
    fleet.runtime = replace(fleet.runtime, deleting=True)
    fleet.now += timedelta(seconds=1800)
    fleet.settle()
    assert list(fleet.instances) == ["n0"]
    assert fleet.condition("Progressing")[1] == "UnreachableNodes"
    fleet.now += timedelta(seconds=1800)
    fleet.step()
    assert fleet.condition("Degraded")[1] == "OrphanedNodes"
    assert "noderuntime switch uninstall" in fleet.condition("Degraded")[2]
    fleet.settle()
    assert (fleet.instances, fleet.pods, fleet.template) == ({}, {}, None)
    assert fleet.runtime.finalizers == ()
    assert fleet.nodes["n0"].labels == {"pool": "a", ORPHANED_LABEL: "rt"}


def test_unreachable_node_holds_a_deletion_that_waits_forever() -> None:
    fleet = Fleet.of(2)
    fleet.change(removal={"policy": "WaitForever"})
    fleet.set("n0", ready=False)
    fleet.runtime = replace(fleet.runtime, deleting=True)
    fleet.now += timedelta(days=30)
    fleet.settle()
    assert list(fleet.instances) == ["n0"]


def test_orphaned_node_that_is_claimed_again_loses_the_mark() -> None:
    fleet = Fleet()
    fleet.add("n0")
    fleet.label("n0", {ORPHANED_LABEL: "rt", HANDLER_LABEL_PREFIX + "runc": "true"})
    fleet.step()
    fleet.step()
    assert fleet.nodes["n0"].labels == {"pool": "a", OWNER_LABEL: "rt"}


def test_history_is_bounded_and_keeps_what_is_in_use() -> None:
    fleet = Fleet.of(1)
    for number in range(2, 12):
        upgrade(fleet, f"v{number}")
        fleet.settle()
    assert len(fleet.revisions) <= 6
    assert fleet.status.current_revision in fleet.revisions


def test_pods_of_a_lost_service_account_are_replaced() -> None:
    fleet = Fleet.of(2)
    state = fleet.cluster()
    lost = [replace(pod, service_account="old") for pod in _pods(fleet)]
    kept = [replace(pod, service_account="new") for pod in _pods(fleet)]
    for pods, replaced in ((lost, ["n0", "n1"]), (kept, [])):
        for deleting in (False, True):
            going = replace(fleet.runtime, deleting=deleting)
            todo = plan(going, replace(state, agent_pods=tuple(pods), service_account="new"))
            assert [pod.node for pod in todo.replace] == replaced


def _pods(fleet: Fleet) -> list[AgentPodView]:
    return [AgentPodView(name, name, name, image) for name, image in fleet.pods.items()]


events = st.lists(
    st.tuples(
        st.sampled_from(["off", "on", "skip", "unskip", "cordon", "uncordon", "join", "upgrade", "step"]),
        st.integers(0, 5),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(events, st.integers(1, 3), st.sets(st.integers(0, 5), max_size=2), st.booleans())
def test_any_rollout_converges_within_its_budget(
    happened: list[tuple[str, int]], limit: int, broken: set[int], canary: bool
) -> None:
    update = {"maxUnavailable": limit} | ({"canary": {"nodes": 1, "soakSeconds": 30}} if canary else {})
    fleet = Fleet.of(6, **update)
    fleet.bad = lambda name, wanted: wanted.image in ("v2", "v4") and name in {f"n{i}" for i in broken}
    for what, number in happened:
        _happen(fleet, what, f"n{number}")
        fleet.step()
    for name in list(fleet.nodes):
        _happen(fleet, "on", name)
        _happen(fleet, "unskip", name)
        _happen(fleet, "uncordon", name)
    fleet.settle()
    assert fleet.most_moving <= limit
    target = fleet.revisions[fleet.status.update_revision or ""].revision.image
    assert set(fleet.images()) == {target}
    assert all(instance.observed for instance in fleet.instances.values())


def _happen(fleet: Fleet, what: str, name: str) -> None:
    match what:
        case "off" | "on":
            fleet.set(name, ready=what == "on")
        case "skip" | "unskip":
            fleet.label(name, {SKIP_LABEL: "x" if what == "skip" else None})
        case "cordon" | "uncordon":
            fleet.set(name, unschedulable=what == "cordon")
        case "join":
            fleet.add(f"new-{len(fleet.nodes)}")
        case "upgrade":
            upgrade(fleet, f"v{int(fleet.image[1:]) + 1}")
