"""Whole rollouts on a fleet in memory: waves, canaries, the budget."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fleet import Fleet
from hypothesis import given, settings
from hypothesis import strategies as st

from noderuntime_operator.api.names import SKIP_LABEL


def test_good_revision_reaches_all_nodes_and_becomes_current() -> None:
    fleet = Fleet.of(5, maxUnavailable=2)
    old = fleet.status.current_revision
    fleet.upgrade()
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
    fleet.upgrade()
    fleet.settle()
    assert (fleet.most_moving, fleet.images()) == (moving, ["v2"] * 10)


def test_canaries_change_first_and_soak() -> None:
    fleet = Fleet.of(6, maxUnavailable=6, canary={"nodes": 2, "soakSeconds": 120})
    fleet.upgrade()
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
    fleet.upgrade()
    fleet.settle()
    assert (fleet.images(), fleet.log) == (["v1"] * 3, ["Canary"])
    assert "a Ready node that update.canary.selector matches" in fleet.condition("Progressing")[2]
    fleet.label("n2", {"canary": "yes"})
    fleet.step()
    assert fleet.images() == ["v1", "v1", "v2"]
    fleet.settle()
    assert fleet.images() == ["v2"] * 3


def test_paused_rollout_takes_no_node_and_says_so() -> None:
    fleet = Fleet.of(4, maxUnavailable=1)
    fleet.upgrade()
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
    fleet.upgrade()
    while fleet.log[-1:] != ["Soaking"]:
        fleet.step()
    fleet.add("n9")
    fleet.step()
    assert fleet.images() == ["v2", "v1", "v1", "v2"]


def test_operator_that_dies_at_every_step_goes_on() -> None:
    for died in range(40):
        fleet = Fleet.of(5, maxUnavailable=2, canary={"nodes": 1, "soakSeconds": 20})
        fleet.bad = lambda name, wanted: wanted.image == "v2" and name == "n3"
        fleet.upgrade()
        for index in range(40):
            fleet.step(lose_status=index == died)
        fleet.settle()
        assert fleet.images() == ["v1"] * 5, died
        assert fleet.condition("RolledBack")[0] == "True"
        assert fleet.most_moving <= 2


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
            fleet.upgrade(f"v{int(fleet.image[1:]) + 1}")
