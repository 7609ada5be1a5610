"""Decides which side answers a call: this daemon or the upstream.

A sandbox or container is ours if the ledger has its ID. Everything else belongs to the upstream, or,
on a node without one, to us: our verbs then report that it does not exist. A full ID is looked up in
memory. A prefix, which a person typed, must match one ID of both sides, so the upstream is asked as well.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import grpc

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.routes import Method, Route, methods
from noderuntime.edge.router.upstream import Upstream, UpstreamStatus

_STATUS = "/runtime.v1.RuntimeService/Status"
_STATUS_SECONDS = 10.0
_STATUS_OF = {
    method.route: method for method in methods() if method.name in ("PodSandboxStatus", "ContainerStatus")
}
"""The call that tells whether the upstream has an object, by the route of the object's calls."""


class Identified(Protocol):
    """A record in the ledger."""

    @property
    def id(self) -> str:
        """The full ID."""


class Finder(Protocol):
    """A table of the ledger."""

    def find(self, identifier: str) -> Identified | None:
        """Return the record with this ID, or the only one whose ID has this prefix; None if no ID has it.

        InvalidArgument if several have it.
        """


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

        InvalidArgument for a handler that neither side offers and for an ambiguous prefix of an ID.
        """
        if method.route is Route.HANDLER:
            return await self._is_our_handler(request)
        field = method.id_field
        if field is None:
            return False
        identifier = getattr(request, field)
        record = self._tables[method.route].find(identifier)
        if record is None:
            return self.upstream is None
        if identifier != record.id and await self._is_known_upstream(method.route, identifier):
            raise InvalidArgument(f"{field} {identifier} is ambiguous: the upstream has such an ID too")
        setattr(request, field, record.id)
        return True

    async def _is_known_upstream(self, route: Route, prefix: str) -> bool:
        """Return whether an ID of the upstream has the prefix, or several: then it answers with an error.

        Raises UpstreamStatus if it does not answer: only a full ID is certain then.
        """
        if self.upstream is None:
            return False
        call = _STATUS_OF[route]
        request = call.request(**{str(call.id_field): prefix}).SerializeToString()
        try:
            await self.upstream.unary(call.path, request, timeout=_STATUS_SECONDS).reply()
        except UpstreamStatus as error:
            if error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            return error.code is not grpc.StatusCode.NOT_FOUND
        return True

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
