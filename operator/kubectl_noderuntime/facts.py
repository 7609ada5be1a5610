"""The objects that decide whether a pod runs, and what they say about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from kubectl_noderuntime.objects import Json, by_name, items, labels_of, name_of, part
from kubectl_noderuntime.output import clean
from noderuntime_operator.api.names import OWNER_LABEL


@dataclass(frozen=True)
class Facts:
    """A pod, and the objects that concern it. None: the user may not read the kind."""

    pod: Json
    runtime_class: Json | None = None
    """The pod's RuntimeClass; empty if the pod has none, or if it does not exist."""
    runtimes: Sequence[Json] | None = None
    instances: Sequence[Json] | None = None
    """The instances of the NodeRuntime to which the RuntimeClass belongs."""
    offered: bool | None = None
    """Whether the RuntimeClass selects at least one node."""
    node: Json | None = None
    events: Sequence[Json] | None = None
    """The pod's events."""
    hidden: Sequence[str] = ()
    """The kinds that the user may not read."""

    @property
    def name(self) -> str:
        """Namespace and name of the pod."""
        return f"{part(self.pod, 'metadata').get('namespace')}/{name_of(self.pod)}"

    @property
    def class_name(self) -> str:
        """The pod's runtimeClassName, or an empty string."""
        return str(part(self.pod, "spec").get("runtimeClassName") or "")

    @property
    def handler(self) -> str:
        """The handler of the pod's RuntimeClass; that of a missing class probably has its name."""
        return str((self.runtime_class or {}).get("handler") or self.class_name)

    @property
    def node_name(self) -> str:
        """The node of the pod, or an empty string."""
        return str(part(self.pod, "spec").get("nodeName") or "")

    @property
    def owner_name(self) -> str:
        """The NodeRuntime to which the RuntimeClass belongs, or an empty string."""
        return str(labels_of(self.runtime_class).get(OWNER_LABEL) or "")

    @property
    def is_foreign(self) -> bool:
        """Whether the RuntimeClass exists and belongs to no NodeRuntime."""
        return bool(self.runtime_class) and not self.owner_name

    @cached_property
    def owner(self) -> Json:
        """The NodeRuntime to which the RuntimeClass belongs, or an empty object."""
        return next((found for found in self.runtimes or () if name_of(found) == self.owner_name), {})

    @property
    def node_handler(self) -> Json:
        """What the agent of the pod's node reports about the pod's handler, or an empty object."""
        found = (one for one in self.instances or () if name_of(one) == self.node_name)
        return by_name(items(next(found, {}), "status", "handlers"), self.handler)

    @property
    def containers(self) -> Iterator[Json]:
        """The statuses of the pod's containers, init containers first."""
        yield from items(self.pod, "status", "initContainerStatuses")
        yield from items(self.pod, "status", "containerStatuses")

    def warning(self, reason: str = "", *, containing: str = "", but: str = "") -> str:
        """Return reason and message of the newest warning of this reason, by default of any but another."""
        found = [
            event
            for event in self.events or ()
            if event.get("type") == "Warning"
            and (event.get("reason") == reason if reason else event.get("reason") != but)
            and containing in str(event.get("message"))
        ]
        newest = max(found, key=_time, default={})
        return f"{clean(newest.get('reason'))}: {clean(newest.get('message'))}" if newest else ""


def _time(event: Json) -> str:
    """Return when an event happened last, as RFC 3339."""
    series = part(event, "series").get("lastObservedTime")
    found = series or event.get("lastTimestamp") or event.get("eventTime")
    return str(found or part(event, "metadata").get("creationTimestamp") or "")
