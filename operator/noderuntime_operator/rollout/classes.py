"""What happens to RuntimeClasses: those of a NodeRuntime, and others that use its handlers."""

from __future__ import annotations

from noderuntime_operator.api.names import REMOVING_LABEL
from noderuntime_operator.api.revision import Handler
from noderuntime_operator.cluster_state import ClusterState, RuntimeView


def leaving_classes(runtime: RuntimeView, handlers: list[Handler], cluster: ClusterState) -> list[str]:
    """Return this NodeRuntime's RuntimeClasses that these handlers do not require."""
    wanted = set() if runtime.deleting else {(h.runtime_class, h.name) for h in handlers}
    return [
        known.name
        for known in cluster.runtime_classes.values()
        if known.owner == runtime.name and (known.name, known.handler) not in wanted
    ]


def class_labels(
    runtime: RuntimeView, leaving: list[str], cluster: ClusterState
) -> dict[str, dict[str, str | None]]:
    """Return the label changes that close leaving RuntimeClasses for new pods, and open required ones.

    A class exists until no pod uses it: the kubelet looks it up when it restarts a container.
    """
    return {
        known.name: {REMOVING_LABEL: "true" if known.name in leaving else None}
        for known in cluster.runtime_classes.values()
        if known.owner == runtime.name and known.removing != (known.name in leaving)
    }


def foreign_classes(runtime: RuntimeView, handlers: list[Handler], cluster: ClusterState) -> tuple[str, ...]:
    """Return the required RuntimeClasses of other owners; they are not changed.

    One of a NodeRuntime that does not exist is taken over, if it has the required handler.
    """
    if runtime.deleting:
        return ()
    known = ((cluster.runtime_classes.get(handler.runtime_class), handler) for handler in handlers)
    return tuple(
        found.name
        for found, handler in known
        if found
        and found.owner != runtime.name
        and not (found.owner in cluster.vanished and found.handler == handler.name)
    )


def unbound_classes(handlers: list[Handler], cluster: ClusterState) -> tuple[str, ...]:
    """Return the RuntimeClasses of other names that use a required handler on nodes of any kind."""
    required = {handler.runtime_class for handler in handlers}
    names = {handler.name for handler in handlers}
    return tuple(
        known.name
        for known in cluster.runtime_classes.values()
        if known.is_unbound and known.handler in names and known.name not in required
    )
