"""Rollouts of a fleet in memory that fail: they stop, or go back to the last good revision."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet import Fleet, v2_fails

from noderuntime_operator.rollout import plan


def test_bad_canary_rolls_back_and_no_other_node_changes() -> None:
    fleet = Fleet.of(4, maxUnavailable=4, canary={"nodes": 1})
    good = fleet.status.current_revision
    fleet.bad = v2_fails
    fleet.upgrade()
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
    fleet.upgrade()
    fleet.settle()
    assert fleet.images() == ["v1"] * 8
    assert fleet.log == ["Rolling", "Stopped", "Rolling", "Complete"]
    assert fleet.most_moving == 2
    assert fleet.condition("RolledBack")[0] == "True"


def test_failed_revision_is_retried_after_a_change_or_on_request() -> None:
    fleet = Fleet.of(2)
    fleet.bad = v2_fails
    fleet.upgrade()
    fleet.settle()
    assert fleet.images() == ["v1", "v1"]
    fleet.upgrade("v3")
    fleet.settle()
    assert (fleet.images(), fleet.condition("RolledBack")[0]) == (["v3", "v3"], "False")

    fleet.upgrade()
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
    fleet.upgrade()
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
    fleet.upgrade()
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


def test_rolled_back_is_true_while_the_rollout_is_held_up() -> None:
    fleet = Fleet.of(4)
    fleet.bad = v2_fails
    good = fleet.status.current_revision
    fleet.upgrade()
    while not fleet.status.failed_revision:
        fleet.step()
    fleet.update(maxUnavailable=1, paused=True)
    fleet.settle()
    state, reason, message = fleet.condition("RolledBack")
    assert (state, reason) == ("True", "RolloutFailed")
    assert f"the rollout of revision {good} is paused after 3 of 4 nodes were given it: 1 nodes" in message

    fleet = Fleet.of(4, rollback="Never", maxUnavailable=1)
    fleet.bad = v2_fails
    fleet.upgrade()
    fleet.settle()
    new = fleet.status.update_revision
    assert fleet.condition("RolledBack") == (
        "False",
        "SpecApplied",
        f"the rollout of the spec's revision {new} is stopped after 1 of 4 nodes were given it",
    )


def test_rollback_to_an_unknown_revision_blames_no_other() -> None:
    fleet = Fleet.of(2)
    first = fleet.status.current_revision
    fleet.runtime = replace(fleet.runtime, rollback_to="unknown")
    fleet.upgrade()
    fleet.settle()
    state, reason, message = fleet.condition("RolledBack")
    assert (state, reason) == ("True", "UnknownRevision")
    assert message.startswith(f"the nodes get revision {first}: revision unknown of the annotation")


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
    fleet.upgrade()
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v2"] * 5, ["Rolling", "Complete"])
    assert fleet.status.wave
    assert (fleet.status.wave.ready, fleet.status.wave.failed) == (3, 2)


@pytest.mark.parametrize(("count", "rolled_back"), [(1, True), (3, True), (10, False)])
def test_percentage_of_failures_is_rounded_down(count: int, rolled_back: bool) -> None:
    fleet = Fleet.of(count, maxFailures="10%", maxUnavailable=1)
    fleet.bad = lambda name, wanted: wanted.image == "v2" and name == "n0"
    fleet.upgrade()
    fleet.settle()
    assert fleet.images() == ["v1" if rolled_back else "v2"] * count


def test_node_that_failed_before_is_no_failure_of_the_revision() -> None:
    fleet = Fleet.of(3)
    fleet.bad = lambda name, _spec: name == "n1"
    fleet.instances["n1"] = replace(
        fleet.instances["n1"],
        status=fleet.instances["n1"].status.model_copy(update={"phase": "Failed"}),
    )
    fleet.upgrade()
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v2"] * 3, ["Rolling", "Complete"])
    assert fleet.condition("RolledBack")[0] == "False"
    assert fleet.condition("Degraded")[0] == "True"


def test_annotation_rolls_back_until_it_is_removed() -> None:
    fleet = Fleet.of(2, canary={"nodes": 1, "soakSeconds": 60})
    first = fleet.status.current_revision or ""
    fleet.upgrade()
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


def test_history_is_bounded_and_keeps_what_is_in_use() -> None:
    fleet = Fleet.of(1)
    for number in range(2, 12):
        fleet.upgrade(f"v{number}")
        fleet.settle()
    assert len(fleet.revisions) <= 6
    assert fleet.status.current_revision in fleet.revisions
