"""A local copy of the API server's objects, for ``kubectl noderuntime watch``."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from kubectl_noderuntime.cluster import Cluster
from kubectl_noderuntime.errors import Refused
from kubectl_noderuntime.objects import Json, name_of


@dataclass
class Mirror:
    """The objects of one kind that match the selectors, kept up to date by a watch."""

    cluster: Cluster
    kind: str
    fields: str = ""
    labels: str = ""
    reconnect_seconds: float = 2.0
    objects: dict[str, Json] = field(default_factory=dict)
    filled: bool = False
    problem: str = ""
    """Why the copy is not up to date; empty while it is."""

    async def follow(self, changed: asyncio.Event) -> None:
        """Keep the copy up to date and set the event after each change, until cancelled.

        After the end of a watch, whatever its cause, the objects are listed again. Raises Refused if the
        first list fails, or if the user lost the permission.
        """
        while True:
            try:
                await self._fill_and_watch(changed)
            except Refused as error:
                if not self.filled or error.is_lasting:
                    raise
                self.problem = str(error)
                changed.set()
                await asyncio.sleep(self.reconnect_seconds)

    async def _fill_and_watch(self, changed: asyncio.Event) -> None:
        """List the objects, then apply changes until the API server ends the watch. Raises Refused."""
        found, version = await self.cluster.snapshot(self.kind, fields=self.fields, labels=self.labels)
        self.objects = {name_of(one): one for one in found}
        self.filled, self.problem = True, ""
        changed.set()
        changes = self.cluster.watch(self.kind, version, fields=self.fields, labels=self.labels)
        async with aclosing(changes):
            async for change, body in changes:
                if change == "DELETED":
                    self.objects.pop(name_of(body), None)
                else:
                    self.objects[name_of(body)] = body
                changed.set()
