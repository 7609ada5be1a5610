"""``kubectl noderuntime status``: show NodeRuntimes with their conditions, rollout, handlers and nodes."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from kubectl_noderuntime import output
from kubectl_noderuntime.cluster import Cluster
from kubectl_noderuntime.objects import bare
from kubectl_noderuntime.report import RuntimeReport, as_dict, reports
from kubectl_noderuntime.tree import forest
from noderuntime_operator.api.names import OWNER_LABEL


async def run(cluster: Cluster, args: Namespace) -> int:
    """Print a tree for each NodeRuntime."""
    found = await _fetch(cluster, bare(args.name) if args.name else "")
    if args.output == "json":
        output.show_json({"noderuntimes": [as_dict(report) for report in found]})
    elif found:
        output.show(forest(found, every=args.all))
    else:
        output.show("no NodeRuntime exists: apply one, for example examples/noderuntime.yaml")
    return 0


async def _fetch(cluster: Cluster, name: str) -> list[RuntimeReport]:
    """Return the report of one NodeRuntime, by default of all. Raises Refused."""
    if not name:
        return reports(
            *await asyncio.gather(cluster.objects("NodeRuntime"), cluster.objects("NodeRuntimeInstance"))
        )
    labels = f"{OWNER_LABEL}={name}"
    runtime = await cluster.get("NodeRuntime", name)
    return reports([runtime], await cluster.objects("NodeRuntimeInstance", labels=labels))
