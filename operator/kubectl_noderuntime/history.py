"""``kubectl noderuntime history``: list the revisions of a NodeRuntime."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from kubectl_noderuntime import output
from kubectl_noderuntime.cluster import Cluster
from kubectl_noderuntime.objects import Json, bare, name_of, part
from kubectl_noderuntime.output import clean
from noderuntime.cli.text import table
from noderuntime_operator.api.names import OWNER_LABEL, REVISION_LABEL, ROLLBACK_ANNOTATION


@dataclass(frozen=True)
class Revision:
    """The agents' image and spec that a rollout brought to the nodes."""

    name: str
    number: int
    image: str
    created: str
    state: str
    """current: the last good one. target: the one that the nodes get. failed: rolled back."""


async def run(cluster: Cluster, args: Namespace) -> int:
    """Print the revisions, the newest first."""
    name = bare(args.name)
    found = revisions(await cluster.get("NodeRuntime", name), await fetch(cluster, name))
    if args.output == "json":
        output.show_json({"noderuntime": name, "revisions": [asdict(one) for one in found]})
    elif found:
        rows = [(str(one.number), one.name, one.image, one.created, one.state) for one in found]
        print(table(("NUMBER", "REVISION", "IMAGE", "CREATED", "STATE"), rows), end="")
    else:
        output.say(
            f"NodeRuntime {name} has no revisions yet: the operator writes one when it starts a rollout"
        )
    return 0


async def fetch(cluster: Cluster, name: str) -> Sequence[Json]:
    """Return a NodeRuntime's ControllerRevisions, without those of its agents' DaemonSet. Raises Refused."""
    return await cluster.objects("ControllerRevision", labels=f"{OWNER_LABEL}={name},{REVISION_LABEL}")


def revisions(runtime: Json, found: Iterable[Json]) -> list[Revision]:
    """Return the revisions of a NodeRuntime, the newest first. Pure."""
    status = part(runtime, "status")
    pinned = part(runtime, "metadata", "annotations").get(ROLLBACK_ANNOTATION)
    states = {
        "current": status.get("currentRevision"),
        "target": status.get("updateRevision"),
        "failed": part(status, "failedRevision").get("revision"),
        "rolled back to": pinned,
    }
    return sorted((_revision(one, states) for one in found), key=lambda one: -one.number)


def _revision(body: Json, states: Json) -> Revision:
    name = name_of(body)
    return Revision(
        name=name,
        number=int(body.get("revision") or 0),
        image=clean(part(body, "data").get("image") or ""),
        created=clean(part(body, "metadata").get("creationTimestamp") or ""),
        state=", ".join(state for state, known in states.items() if known == name),
    )
