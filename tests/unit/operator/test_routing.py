"""A change wakes the NodeRuntimes that it concerns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import instance, node, runtime, spec
from fakeapi import FakeApi

from noderuntime_operator.cluster_state import AgentPodView, DaemonSetView, InstanceView, NodeView
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.observe import Caches
from noderuntime_operator.routing import Router


class Routed:
    """Caches, and the NodeRuntimes that were woken."""

    def __init__(self, caches: Caches) -> None:
        self.caches = caches
        self.woken: list[str] = []
        self.router = Router(caches, self.woken.append)
        self.router.connect()

    def change(self, old: NodeView | InstanceView | None, new: NodeView | InstanceView | None) -> set[str]:
        """Deliver a change as the informer does; return who was woken."""
        view = new or old
        assert view
        cache = self.caches.nodes if isinstance(view, NodeView) else self.caches.instances
        cache.changed(view.name, old, new)  # type: ignore[arg-type]
        found, self.woken[:] = set(self.woken), []
        return found


@pytest.fixture
async def routed() -> Routed:
    async with FakeApi().serving() as kube:
        a, b = runtime(name="a"), runtime(spec(selector={"matchLabels": {"pool": "b"}}), name="b")
        return Routed(Caches.over(kube, {"a": [a], "b": [b]}, Metrics()))


async def test_node_wakes_the_noderuntime_that_selects_it(routed: Routed) -> None:
    new = node("n1", claimed=None, pool="b")
    assert routed.change(None, new) == {"b"}
    assert routed.change(new, replace(new, ready=False)) == {"b"}
    assert routed.change(new, None) == {"b"}


async def test_moved_node_wakes_both_noderuntimes(routed: Routed) -> None:
    old, new = node("n1", claimed="a"), node("n1", claimed="a", pool="b")
    assert routed.change(old, new) == {"a", "b"}


async def test_node_of_no_noderuntime_wakes_none(routed: Routed) -> None:
    assert routed.change(None, node("n1", claimed="gone", pool="c")) == set()


async def test_report_wakes_only_its_noderuntime(routed: Routed) -> None:
    routed.caches.nodes.views["n1"] = node("n1", claimed="b", pool="a")
    old, new = instance("n1", "Installing", runtime_name="b"), instance("n1", "Ready", runtime_name="b")
    assert routed.change(old, new) == {"b"}


async def test_deleted_instance_frees_its_node_for_others(routed: Routed) -> None:
    routed.caches.nodes.views["n1"] = node("n1", claimed=None, pool="a")
    assert routed.change(instance("n1", runtime_name="b"), None) == {"a", "b"}


async def test_daemon_set_wakes_its_owner(routed: Routed) -> None:
    routed.caches.daemon_sets.changed("agents", None, DaemonSetView("agents", "a"))
    assert routed.woken == ["a"]


async def test_agents_pod_wakes_its_noderuntime(routed: Routed) -> None:
    routed.caches.agent_pods.changed("agent-1", None, AgentPodView("agent-1", "u", "n1", "i", runtime="b"))
    assert routed.woken == ["b"]
