"""``kubectl noderuntime why``: explain in one paragraph why a pod does not run."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from typing import TypeVar

from kubectl_noderuntime import output
from kubectl_noderuntime.cluster import Cluster
from kubectl_noderuntime.diagnosis import diagnose
from kubectl_noderuntime.errors import Refused
from kubectl_noderuntime.facts import Facts
from kubectl_noderuntime.objects import Json, bare, labels_of, part
from noderuntime_operator.api.names import OWNER_LABEL

T = TypeVar("T")


async def run(cluster: Cluster, args: Namespace) -> int:
    """Print the explanation."""
    facts = await _gather(cluster, bare(args.pod))
    diagnosis = diagnose(facts)
    if args.output == "json":
        output.show_json({"pod": facts.name, "node": facts.node_name or None, **asdict(diagnosis)})
    else:
        output.show(output.styled(diagnosis.text))
    return 0


async def _gather(cluster: Cluster, name: str) -> Facts:
    """Return the pod and the objects that concern it. Raises Refused if the pod cannot be read."""
    pod = await cluster.get("Pod", name)
    reader = _Reader(cluster)
    runtime_class = await reader.get("RuntimeClass", part(pod, "spec").get("runtimeClassName") or "")
    selector = part(runtime_class, "scheduling", "nodeSelector")
    runtimes, instances, offered, node, events = await asyncio.gather(
        reader.objects("NodeRuntime"),
        reader.objects(
            "NodeRuntimeInstance", labels=f"{OWNER_LABEL}={labels_of(runtime_class).get(OWNER_LABEL, '')}"
        ),
        reader.has("Node", ",".join(f"{key}={value}" for key, value in selector.items())),
        reader.get("Node", part(pod, "spec").get("nodeName") or ""),
        reader.objects("Event", fields=f"involvedObject.uid={part(pod, 'metadata').get('uid')}"),
    )
    return Facts(pod, runtime_class, runtimes, instances, offered, node, events, tuple(sorted(reader.hidden)))


class _Reader:
    """Reads what the user may read; the kinds that are forbidden are noted in ``hidden``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.hidden: set[str] = set()

    async def get(self, kind: str, name: str) -> Json | None:
        """Return an object, empty if it does not exist, None if it is hidden. Raises Refused."""
        if not name:
            return {}
        return await self._allowed(kind, self._cluster.get(kind, name), {})

    async def objects(self, kind: str, *, fields: str = "", labels: str = "") -> Sequence[Json] | None:
        """Return objects, none if the kind does not exist, None if it is hidden. Raises Refused."""
        return await self._allowed(kind, self._cluster.objects(kind, fields=fields, labels=labels), [])

    async def has(self, kind: str, labels: str) -> bool | None:
        """Return whether an object with these labels exists, None if the kind is hidden. Raises Refused."""
        return await self._allowed(kind, self._cluster.has(kind, labels), False)

    async def _allowed(self, kind: str, reading: Awaitable[T], absent: T) -> T | None:
        try:
            return await reading
        except Refused as error:
            if error.is_missing:
                return absent
            if not error.is_forbidden:
                raise
            self.hidden.add(kind)
            return None
