"""Route a changed object to the NodeRuntimes that it concerns; the others are not reconciled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from noderuntime_operator.cluster_state import (
    AgentPodView,
    DaemonSetView,
    InstanceView,
    NodeView,
    RuntimeClassView,
    matches,
)
from noderuntime_operator.observe import Caches


class Router:
    """Wakes NodeRuntimes by the changes of other objects. Its methods take a view before and after."""

    def __init__(self, caches: Caches, wake: Callable[[str], None]) -> None:
        self._caches = caches
        self._wake = wake

    def connect(self) -> None:
        """Route the changes of the caches from now on."""
        self._caches.nodes.changed = self.node
        self._caches.instances.changed = self.instance
        self._caches.daemon_sets.changed = self.daemon_set
        self._caches.agent_pods.changed = self.agent_pod
        self._caches.runtime_classes.changed = self.runtime_class

    def node(self, name: str, old: NodeView | None, new: NodeView | None) -> None:
        """Wake the NodeRuntimes that claim the node or select it, before or after the change."""
        instance = self._caches.instances.views.get(name)
        names = {instance.spec.runtime_name} if instance else set()
        for view in (old, new):
            if view:
                names |= {view.claimed_by or "", *self._selecting(view)}
        self._wake_known(names)

    def instance(self, name: str, old: InstanceView | None, new: InstanceView | None) -> None:
        """Wake the instance's NodeRuntime; if it was created or deleted, also those that select its node."""
        names = {view.spec.runtime_name for view in (old, new) if view}
        node = self._caches.nodes.views.get(name)
        if node and (old is None or new is None):
            names |= {*self._selecting(node)}
        self._wake_known(names)

    def daemon_set(self, _name: str, old: DaemonSetView | None, new: DaemonSetView | None) -> None:
        """Wake the owner of the agents."""
        self._wake_known({view.owner for view in (old, new) if view})

    def agent_pod(self, _name: str, old: AgentPodView | None, new: AgentPodView | None) -> None:
        """Wake the NodeRuntime of an agent: its pod is another one now, or its image cannot be pulled."""
        self._wake_known({view.runtime for view in (old, new) if view})

    def runtime_class(self, _name: str, _old: RuntimeClassView | None, _new: RuntimeClassView | None) -> None:
        """Wake all NodeRuntimes: a class can conflict with the handlers of any."""
        self._wake_known({*self._caches.runtimes})

    def _selecting(self, node: NodeView) -> Iterator[str]:
        """Yield the NodeRuntimes whose selector matches the node."""
        for name, views in self._caches.runtimes.items():
            if any(matches(view.spec.selector, node.labels) for view in views):
                yield name

    def _wake_known(self, names: set[str]) -> None:
        for name in names & self._caches.runtimes.keys():
            self._wake(name)
