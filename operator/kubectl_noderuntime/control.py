"""``kubectl noderuntime pause``, ``resume``, ``retry`` and ``rollback``: steer a rollout."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime

from kubectl_noderuntime import output
from kubectl_noderuntime.cluster import Cluster, Json
from kubectl_noderuntime.errors import PluginError
from kubectl_noderuntime.history import Revision, fetch, revisions
from kubectl_noderuntime.objects import bare, name_of, part
from noderuntime_operator.api.names import RETRY_ANNOTATION, ROLLBACK_ANNOTATION

_RUNTIME_PREFIXES = ("noderuntime", "noderuntimes", "nr")


async def pause(cluster: Cluster, args: Namespace) -> int:
    """Change no more nodes; those that are changing finish."""
    name = bare(args.name)
    await cluster.patch("NodeRuntime", name, {"spec": {"update": {"paused": True}}})
    output.say(f"NodeRuntime {name}: rollout paused (kubectl noderuntime resume {name} continues it)")
    return 0


async def resume(cluster: Cluster, args: Namespace) -> int:
    """Continue a paused rollout."""
    name = bare(args.name)
    await cluster.patch("NodeRuntime", name, {"spec": {"update": {"paused": False}}})
    output.say(f"NodeRuntime {name}: rollout continues (kubectl noderuntime watch {name} shows it)")
    return 0


async def retry(cluster: Cluster, args: Namespace) -> int:
    """Try a version again that failed on a node, or a revision that was rolled back on all nodes."""
    kind, _, name = args.node.rpartition("/")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if kind in _RUNTIME_PREFIXES:
        await cluster.patch("NodeRuntime", name, _annotation(RETRY_ANNOTATION, now))
        output.say(f"NodeRuntime {name}: failed revision is tried again")
    else:
        await cluster.patch("NodeRuntimeInstance", name, _annotation(RETRY_ANNOTATION, now))
        output.say(f"node {name}: failed version is tried again")
    return 0


async def rollback(cluster: Cluster, args: Namespace) -> int:
    """Make an earlier revision the target of all nodes, until the rollback is cancelled."""
    name = bare(args.name)
    if args.cancel:
        await cluster.patch("NodeRuntime", name, _annotation(ROLLBACK_ANNOTATION, None))
        output.say(f"NodeRuntime {name}: rollback cancelled, its spec is the target again")
        return 0
    runtime = await cluster.get("NodeRuntime", name)
    target = choose(runtime, revisions(runtime, await fetch(cluster, name)), args.to)
    await cluster.patch("NodeRuntime", name, _annotation(ROLLBACK_ANNOTATION, target))
    output.say(
        f"NodeRuntime {name}: revision {target} is the target of all nodes,"
        f" until you run kubectl noderuntime rollback {name} --cancel"
    )
    return 0


def choose(runtime: Json, found: Sequence[Revision], wanted: str | None) -> str:
    """Return the requested revision, by default the last good one. Raises PluginError."""
    name, status = name_of(runtime), part(runtime, "status")
    known = [one.name for one in found]
    if wanted:
        if wanted not in known:
            names = ", ".join(known) or "none"
            raise PluginError(f"NodeRuntime {name} has no revision {wanted} (kept revisions: {names})")
        return wanted
    target, current = status.get("updateRevision"), status.get("currentRevision")
    if current in known and current != target:
        return str(current)
    earlier = known[known.index(target) + 1 :] if target in known else known[1:]
    if not earlier:
        raise PluginError(f"NodeRuntime {name} has no earlier revision (kubectl noderuntime history {name})")
    return earlier[0]


def _annotation(key: str, value: str | None) -> Json:
    """Return the patch that sets an annotation, or removes it."""
    return {"metadata": {"annotations": {key: value}}}
