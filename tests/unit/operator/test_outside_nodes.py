"""Nodes of a fleet in memory that a rollout leaves out, or that do not finish in time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from fleet import Fleet, v2_fails

from noderuntime_operator.api.names import SKIP_LABEL
from noderuntime_operator.rollout import plan


def test_dead_node_is_outside_and_caught_up_when_it_returns() -> None:
    fleet = Fleet.of(3)
    fleet.set("n0", ready=False)
    fleet.upgrade()
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v1", "v2", "v2"], ["Rolling", "Complete"])
    assert [(o.name, o.reason) for o in fleet.status.outside_nodes or ()] == [("n0", "NotReady")]
    assert fleet.condition("Progressing")[2].endswith("left out for now: n0 (NotReady)")
    fleet.upgrade("v3")
    fleet.settle()
    fleet.set("n0", ready=True)
    fleet.settle()
    assert (fleet.images(), fleet.status.outside_nodes) == (["v3"] * 3, [])


def test_node_that_dies_in_its_wave_does_not_hold_up_the_others() -> None:
    fleet = Fleet.of(3, maxUnavailable=1)
    fleet.upgrade()
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
    fleet.upgrade()
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
    fleet.upgrade()
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
    fleet.upgrade()
    fleet.settle()
    assert fleet.images() == ["v1", "v1", "v2"]
    named = [(o.name, o.reason) for o in fleet.status.outside_nodes or ()]
    assert named == [("n0", "Skipped"), ("n1", "Cordoned")]
    fleet.label("n0", {SKIP_LABEL: None})
    fleet.set("n1", unschedulable=False)
    fleet.settle()
    assert fleet.images() == ["v2"] * 3


def test_revision_that_most_nodes_have_not_got_is_not_the_good_one() -> None:
    fleet = Fleet.of(5)
    good = fleet.status.current_revision
    for name in ("n0", "n1", "n2"):
        fleet.label(name, {SKIP_LABEL: ""})
    fleet.upgrade()
    fleet.settle()
    assert (fleet.images(), fleet.log[-1]) == (["v1", "v1", "v1", "v2", "v2"], "Complete")
    assert fleet.status.current_revision == good != fleet.status.update_revision

    fleet.bad = v2_fails
    fleet.label("n0", {SKIP_LABEL: None})
    fleet.settle()
    assert fleet.images() == ["v1"] * 5, "the nodes that come later do not stop the revision"


def test_revision_is_good_once_as_many_nodes_proved_it_as_are_outside() -> None:
    fleet = Fleet.of(4)
    for name in ("n0", "n1", "n2"):
        fleet.set(name, unschedulable=True)
    fleet.upgrade()
    fleet.settle()
    assert fleet.status.current_revision != fleet.status.update_revision
    fleet.set("n0", unschedulable=False)
    fleet.settle()
    assert fleet.images() == ["v2", "v1", "v1", "v2"]
    assert fleet.status.current_revision == fleet.status.update_revision


def test_nodes_that_are_cordoned_because_they_broke_are_failures() -> None:
    fleet = Fleet.of(4, rollback="Never")
    fleet.bad = v2_fails
    fleet.upgrade()
    for _ in range(20):
        fleet.step()
        for name, instance in fleet.instances.items():
            if instance.status.phase == "Failed":
                fleet.set(name, unschedulable=True)
    assert fleet.images() == ["v2", "v1", "v1", "v1"]


def test_agent_that_never_reports_fails_after_its_deadline() -> None:
    fleet = Fleet.of(2)
    fleet.upgrade()
    fleet.step()
    stuck = fleet.now
    fleet.pods["n0"] = "hangs"
    todo = plan(fleet.runtime, fleet.cluster())
    assert ([pod.node for pod in todo.replace], todo.late) == (["n0"], {})
    fleet.now = stuck + timedelta(minutes=20)
    todo = plan(fleet.runtime, fleet.cluster())
    assert todo.late == {"n0": "the node did not finish its change within 20 minutes"}
    assert todo.failed_revision
