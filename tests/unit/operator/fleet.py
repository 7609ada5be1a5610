"""A fleet in memory: plans are applied to it, and agents answer, step by step, until nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from builders import runtime, spec

from noderuntime_operator.api.instance import InstanceSpec, InstanceStatus
from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import (
    AgentPodView,
    ClusterState,
    DaemonSetView,
    ImagePullView,
    InstanceView,
    NodeView,
    RevisionView,
    RuntimeView,
)
from noderuntime_operator.desired import daemon_set_name
from noderuntime_operator.rollout import Plan, agents_to_search, plan
from noderuntime_operator.status import status

STEP = timedelta(seconds=10)


def v2_fails(_name: str, wanted: InstanceSpec) -> bool:
    """A Fleet.bad: the image v2 fails on every node."""
    return wanted.image == "v2"


@dataclass
class Fleet:
    """Nodes, their agents and what the operator wrote. Every step the operator is as if it had restarted."""

    runtime: RuntimeView = field(default_factory=runtime)
    image: str = "v1"
    nodes: dict[str, NodeView] = field(default_factory=dict)
    instances: dict[str, InstanceView] = field(default_factory=dict)
    revisions: dict[str, RevisionView] = field(default_factory=dict)
    pods: dict[str, str] = field(default_factory=dict)
    """The image of the agent's pod on each node."""
    template: str | None = None
    """The image of the DaemonSet's template; None: there is no DaemonSet."""
    bad: Callable[[str, InstanceSpec], bool] = lambda _name, _spec: False
    """Whether an agent fails to bring a node to a spec."""
    missing: frozenset[str] = frozenset()
    """Images that cannot be pulled."""
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    most_moving: int = 0
    """The number of nodes that were changing when the operator had taken another one."""
    log: list[str] = field(default_factory=list)
    """The phases of the rollout."""

    @classmethod
    def of(cls, count: int, **update: Any) -> Fleet:
        """Return a fleet on which v1 is installed and good."""
        fleet = cls(runtime(spec(limit=count)))
        for index in range(count):
            fleet.add(f"n{index}")
        fleet.settle()
        fleet.change(update=update)
        fleet.most_moving, fleet.log = 0, []
        return fleet

    def upgrade(self, image: str = "v2") -> None:
        """Give the operator another image for the agents."""
        self.image = image

    def add(self, name: str, **view: Any) -> None:
        """Let a node join."""
        self.nodes[name] = NodeView(name, f"uid-{name}", {"pool": "a"}, ready=True, since=self.now, **view)

    def set(self, name: str, **view: Any) -> None:
        """Change a node."""
        since = self.now if "ready" in view else self.nodes[name].since
        self.nodes[name] = replace(self.nodes[name], since=since, **view)

    def label(self, name: str, labels: dict[str, str | None]) -> None:
        """Change a node's labels; None removes one."""
        merged = {**self.nodes[name].labels, **labels}
        self.set(name, labels={key: value for key, value in merged.items() if value is not None})

    def change(self, **fields: Any) -> None:
        """Change the NodeRuntime's spec."""
        raw = {**self.runtime.spec.dump(), **fields}
        generation = self.runtime.generation + 1
        self.runtime = replace(self.runtime, spec=NodeRuntimeSpec.model_validate(raw), generation=generation)

    def update(self, **fields: Any) -> None:
        """Change the fields of spec.update."""
        self.change(update={**self.runtime.spec.update.dump(), **fields})

    @property
    def status(self) -> NodeRuntimeStatus:
        return self.runtime.status

    def condition(self, kind: str) -> tuple[str, str, str]:
        (found,) = [c for c in self.status.conditions or () if c.type == kind]
        return found.status, found.reason, found.message

    def images(self) -> list[str | None]:
        """Return the image that each node was given, by the nodes' names."""
        return [self.instances[name].spec.image for name in sorted(self.instances)]

    def cluster(self) -> ClusterState:
        """Return what the operator observes."""
        name = daemon_set_name("rt")
        agents = {name: DaemonSetView(name, "rt")} if self.template else {}
        state = ClusterState(
            dict(self.nodes),
            dict(self.instances),
            daemon_sets=agents,
            now=self.now,
            agent_image=self.image,
            revisions=dict(self.revisions),
        )
        searched = agents_to_search(self.runtime, state)
        pods = (self._pod(name, image) for name, image in self.pods.items())
        return replace(state, agent_pods=tuple(pod for pod in pods if pod.node in searched or pod.pull))

    def _pod(self, node: str, image: str) -> AgentPodView:
        pull = ImagePullView(node, image, "ErrImagePull", "not found") if image in self.missing else None
        return AgentPodView(f"agent-{node}", node, node, image, pull=pull)

    def step(self, *, lose_status: bool = False) -> bool:
        """Reconcile once and let the agents answer; return whether anything changed.

        lose_status: the operator dies after it applied the plan, before it writes the status.
        """
        before = self._snapshot()
        cluster = self.cluster()
        todo = plan(self.runtime, cluster)
        taken = [n for n in {**todo.create, **todo.update} if n not in self.moving]
        self._apply(todo)
        if taken:
            self.most_moving = max(self.most_moving, len(self.moving))
        if not lose_status:
            new = status(self.runtime, cluster, todo, self.now)
            self.runtime = replace(self.runtime, status=new)
            if new.wave and self.log[-1:] != [new.wave.phase]:
                self.log.append(new.wave.phase)
        self._answer()
        self.now += STEP
        return self._snapshot() != before

    def settle(self, steps: int = 400) -> None:
        """Step until nothing changes for 20 minutes, in which every deadline passes."""
        quiet = 0
        for _ in range(steps):
            quiet = 0 if self.step() else quiet + 1
            if quiet > 5:
                return
            if quiet > 1:
                self.now += timedelta(minutes=5)
        raise AssertionError("the fleet does not settle")

    def _snapshot(self) -> object:
        wave = self.status.wave
        return (
            {name: (i.spec, i.generation, i.status) for name, i in self.instances.items()},
            {name: (node.labels, node.ready) for name, node in self.nodes.items()},
            dict(self.pods),
            self.template,
            self.status.current_revision,
            self.status.failed_revision,
            wave.phase if wave else "",
        )

    def _apply(self, todo: Plan) -> None:
        for forgotten in todo.forget:
            del self.revisions[forgotten]
        if todo.store:
            self.revisions[todo.store.name] = todo.store
        if todo.serve:
            self.template = todo.target.revision.image
        for name, wanted in {**todo.create, **todo.update}.items():
            self._write(name, wanted, failed_before=name in todo.failed_before)
        for name, labels in todo.labels.items():
            self.label(name, dict(labels))
        for pod in (*todo.replace, *todo.abandon):
            self.pods.pop(pod.node, None)
        for name in todo.delete_instances:
            del self.instances[name]
        if todo.delete_daemon_set and not self.pods:
            self.template = None
        if todo.finished:
            self.runtime = replace(self.runtime, finalizers=())

    def _write(self, name: str, wanted: InstanceSpec, *, failed_before: bool) -> None:
        old = self.instances.get(name)
        generation = old.generation + (old.spec != wanted) if old else 1
        self.instances[name] = InstanceView(
            name,
            generation,
            old.created if old else self.now,
            wanted,
            old.status if old else InstanceStatus(),
            taken=self.now,
            failed_before=failed_before,
            retry=self.runtime.retry,
        )

    @property
    def moving(self) -> set[str]:
        """The nodes that are changing, except those that are off, skipped or cordoned."""
        mine = self.instances.values()
        return {i.name for i in mine if i.moving and self.nodes[i.name].outside is None}

    def _answer(self) -> None:
        """Run the DaemonSet's pods and their agents on the nodes that are on."""
        for name, node in self.nodes.items():
            if not node.ready:
                continue
            if node.claimed_by != "rt" or self.template is None:
                self.pods.pop(name, None)
            elif name not in self.pods:
                self.pods[name] = self.template
            elif name in self.instances and self.pods[name] not in self.missing:
                self._report(self.instances[name], self.pods[name])

    def _report(self, instance: InstanceView, image: str) -> None:
        wanted = instance.spec
        report: dict[str, Any] = {"agent_image": image}
        if wanted.state == "Removed":
            report |= {"phase": "Removed", "observed_generation": instance.generation}
        elif wanted.image == image:
            phase = "Failed" if self.bad(instance.name, wanted) else "Ready"
            state = "Ready" if phase == "Ready" else "Broken"
            handlers = [{"name": handler.name, "state": state} for handler in wanted.handlers]
            report |= {
                "phase": phase,
                "observed_generation": instance.generation,
                "handlers": handlers,
                "runtime_version": image,
            }
        old = instance.status.model_dump(exclude_none=True)
        self.instances[instance.name] = replace(
            instance, status=InstanceStatus.model_validate({**old, **report})
        )
