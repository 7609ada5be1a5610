"""Sessions: what Exec, Attach and PortForward offer to a client, until the client connects.

The call is checked at once and returns a URL. The client with the URL can start the session once; its
protocol is not known here. If it disconnects, the session is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams that a client requests."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class Stdio(Protocol):
    """The client's end of the streams."""

    async def read(self) -> bytes:
        """Return the client's next input; b"" at its end."""

    async def write(self, stream: int, data: bytes) -> None:
        """Send output to the client, and wait while it is slow. ``stream`` is STDOUT or STDERR.

        Output that the client did not request is dropped.
        """

    def sizes(self) -> AsyncGenerator[tuple[int, int]]:
        """Yield (rows, columns) after changes of the client's terminal, only the last of several."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process whose stdio a client gets (Exec, Attach)."""

    name: Literal["exec", "attach"]
    streams: Streams
    run: Callable[[Stdio], Awaitable[int]]
    """Serve the client until the end and return the exit status."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A pod that a client can connect to (PortForward)."""

    sandbox_id: str
    ports: tuple[int, ...]
    """The ports of the CRI request, which only the oldest clients need."""
    serve: Callable[[int, Stdio], Awaitable[None]]
    """Serve one connection to a TCP port of the pod's localhost until its end."""
    name: Literal["portforward"] = "portforward"


Session = Command | Forward


class Offers(Protocol):
    """A store of sessions that wait for their client."""

    def offer(self, session: Session) -> str:
        """Return the URL at which one client can start the session, once and for a limited time.

        ResourceExhausted if too many sessions wait.
        """


def wanted_streams(request: api_pb2.ExecRequest | api_pb2.AttachRequest) -> Streams:
    """Return the streams of a request. InvalidArgument for an invalid combination."""
    if request.tty and request.stderr:
        raise InvalidArgument("tty and stderr cannot both be true: a terminal has one output")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("one of stdin, stdout, and stderr must be set")
    return Streams(request.stdin, request.stdout, request.stderr, request.tty)
