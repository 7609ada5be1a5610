"""Ours or the upstream's: decided from memory, without asking anybody.

A sandbox or container is ours when the ledger has it, by full ID or by a prefix
that only one of ours has. Everything else belongs to the upstream, or, on a node
without one, to us as well: then our verbs say that there is no such thing.
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
    """A record of ours."""

    @property
    def id(self) -> str:
        """Its full ID."""


class Finder(Protocol):
    """A table of the ledger."""

    def find(self, identifier: str) -> Identified | None:
        """Return the record with this ID or the only one whose ID begins so."""


class Router:
    """Decides who answers a call; ``handlers`` are our own, default first, and may change meanwhile."""

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
        """Tell whether we answer; a prefix in the request becomes the full ID, an empty handler its name.

        Raises InvalidArgument when nobody offers the request's runtime handler.
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
        raise InvalidArgument(f"no runtime handler {name[:63]!r} on this node; there are: {known}")

    async def _upstream_handlers(self) -> set[str] | None:
        """Ask the upstream for its handlers; None when it is too old to tell and must judge itself."""
        if self.upstream is None:
            return set()
        reply = await self.upstream.unary(_STATUS, b"", timeout=_STATUS_SECONDS).reply()
        status = api_pb2.StatusResponse.FromString(reply.body)
        return {handler.name for handler in status.runtime_handlers} or None
