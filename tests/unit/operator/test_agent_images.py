"""The agents' pods in a rollout of a fleet in memory: which of them are replaced."""

from __future__ import annotations

from dataclasses import replace

from fleet import Fleet

from noderuntime_operator.cluster_state import AgentPodView
from noderuntime_operator.rollout import plan


def test_image_that_cannot_be_pulled_rolls_back() -> None:
    fleet = Fleet.of(3)
    fleet.missing = frozenset({"v2"})
    fleet.upgrade()
    fleet.settle()
    assert (fleet.images(), fleet.pods) == (["v1"] * 3, {f"n{i}": "v1" for i in range(3)})
    assert "the image v2 of the agent cannot be pulled" in fleet.condition("RolledBack")[2]
    assert all(instance.observed for instance in fleet.instances.values())


def test_pod_created_early_waits_for_its_nodes_turn() -> None:
    fleet = Fleet.of(3, maxUnavailable=1)
    fleet.upgrade()
    fleet.step()
    fleet.pods.pop("n2")
    fleet.step()
    assert (fleet.pods["n2"], fleet.instances["n2"].spec.image) == ("v2", "v1")
    fleet.settle()
    assert fleet.images() == ["v2"] * 3


def test_pod_that_the_template_cannot_replace_is_kept() -> None:
    fleet = Fleet.of(2, maxUnavailable=1)
    fleet.upgrade()
    fleet.step()
    fleet.update(paused=True)
    fleet.upgrade("v3")
    fleet.pods["n0"] = "v3"
    fleet.step()
    fleet.step()
    assert (fleet.pods["n0"], fleet.instances["n0"].spec.image) == ("v3", "v2")
    assert plan(fleet.runtime, fleet.cluster()).replace == ()
    fleet.update(paused=False)
    fleet.settle()
    assert fleet.images() == ["v3"] * 2


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
