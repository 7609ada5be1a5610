"""Decides from memory whether this daemon or the upstream answers a call.

A sandbox or container is ours if the ledger has it, by full ID or by a prefix that is unique among ours.
All others belong to the upstream. On a node without one they are ours too, and the verbs return NotFound.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.routes import Method, Route
from noderuntime.edge.router.upstream import Upstream

_STATUS = "/runtime.v1.RuntimeService/Status"
_STATUS_SECONDS = 10.0


class Identified(Protocol):
    """A record in the ledger."""

    @property
    def id(self) -> str:
        """The full ID."""


class Finder(Protocol):
    """A table of the ledger."""

    def find(self, identifier: str) -> Identified | None:
        """Return the record with this ID, or the only one whose ID has this prefix."""


class Router:
    """The routing decision. ``handlers`` are those of this daemon, default first, and can change."""

    def __init__(
        self,
        sandboxes: Finder,
        containers: Finder,
        handlers: Collection[str],
        upstream: Upstream | None,
    ) -> None:
        self._tables = {Route.SANDBOX: sandboxes, Route.CONTAINER: containers}
        self._handlers = handlers
        self.upstream = upstream

    async def is_ours(self, method: Method, request: Any) -> bool:
        """Return whether this daemon answers. Completes ID prefixes and an empty handler in the request.

        InvalidArgument if neither side has the request's runtime handler.
        """
        if method.route is Route.HANDLER:
            return await self._is_our_handler(request)
        field = method.id_field
        if field is None:
            return False
        record = self._tables[method.route].find(getattr(request, field))
        if record is not None:
            setattr(request, field, record.id)
        return record is not None or self.upstream is None

    async def _is_our_handler(self, request: api_pb2.RunPodSandboxRequest) -> bool:
        name = request.runtime_handler
        if name in self._handlers:
            return True
        if not name:
            if self.upstream is None:
                request.runtime_handler = next(iter(self._handlers))
            return self.upstream is None
        theirs = await self._upstream_handlers()
        if theirs is None or name in theirs:
            return False
        known = ", ".join(sorted({*self._handlers, *theirs} - {""}))
        raise InvalidArgument(f"no runtime handler {name[:63]!r} on this node (known: {known})")

    async def _upstream_handlers(self) -> set[str] | None:
        """Return the upstream's handlers, or None if it is too old to report them and must decide itself."""
        if self.upstream is None:
            return set()
        reply = await self.upstream.unary(_STATUS, b"", timeout=_STATUS_SECONDS).reply()
        status = api_pb2.StatusResponse.FromString(reply.body)
        return {handler.name for handler in status.runtime_handlers} or None
