"""Sessions: what the calls Exec, Attach and PortForward promise, kept when a client comes for it.

The call is checked at once and answered with a URL. Whoever has the URL may have the session, once; what
the client then speaks is not known here. A client that leaves cancels what it was given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2


@dataclass(frozen=True, slots=True)
class Streams:
    """What of its stdio a client wants to hold."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class Stdio(Protocol):
    """The client's ends of the streams."""

    async def read(self) -> bytes:
        """Return what the client typed next; no bytes when there will be no more."""

    async def write(self, stream: int, data: bytes) -> None:
        """Give the client what was said on STDOUT or STDERR, as slowly as it takes it.

        What it does not want is dropped.
        """

    def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """Yield (rows, columns) whenever the client's terminal has changed; only the last of several."""


@dataclass(frozen=True, slots=True)
class Command:
    """Something that runs and whose stdio a client gets (Exec, Attach)."""

    name: Literal["exec", "attach"]
    streams: Streams
    run: Callable[[Stdio], Awaitable[int]]
    """Serve the client until the end, and return the exit status."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A pod into which a client may connect (PortForward)."""

    sandbox_id: str
    ports: tuple[int, ...]
    """The ones named beforehand, as only the oldest kind of client does."""
    serve: Callable[[int, Stdio], Awaitable[None]]
    """Serve one connection to a TCP port of the pod's localhost, to its end."""
    name: Literal["portforward"] = "portforward"


Session = Command | Forward


class Offers(Protocol):
    """Where sessions wait for their client."""

    def offer(self, session: Session) -> str:
        """Return the URL under which one client may have the session, once and soon.

        ResourceExhausted when too many wait.
        """


def wanted_streams(request: api_pb2.ExecRequest | api_pb2.AttachRequest) -> Streams:
    """Return the streams of a request; InvalidArgument when they make no sense together."""
    if request.tty and request.stderr:
        raise InvalidArgument("tty and stderr cannot both be true: a terminal has one output")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("one of stdin, stdout, and stderr must be set")
    return Streams(request.stdin, request.stdout, request.stderr, request.tty)
