"""Deletions of the NodeRuntime of a fleet in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from fleet import Fleet, v2_fails

from noderuntime_operator.api.names import HANDLER_LABEL_PREFIX, ORPHANED_LABEL, OWNER_LABEL
from noderuntime_operator.rollout import plan


def test_deletion_in_the_middle_of_a_wave_removes_everything() -> None:
    for steps in range(8):
        fleet = Fleet.of(4, maxUnavailable=2)
        fleet.upgrade()
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
    fleet.upgrade()
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
