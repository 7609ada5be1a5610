"""What the daemon and a worker that unpacks say to each other, on a stream socket.

=========  =====================================  ===========================================
who        says                                   when
=========  =====================================  ===========================================
daemon     ``["unpack", TARGET, *LIMITS]``        a job; the layer's descriptor comes with it
worker     ``["beyond", OFFSET]``                 it has read that much and needs more
daemon     ``["there", SIZE, COMPLETE]``          as soon as there is more, or no more to come
worker     ``["unpacked", *UNPACKED]``            it is done, and ready for the next job
worker     ``["failed", ERROR, *ARGUMENTS]``      so it is, but the target is half written
=========  =====================================  ===========================================

Each message is JSON behind its length.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from noderuntime.core.errors import (
    DataLoss,
    HostError,
    Internal,
    InvalidArgument,
    NoderuntimeError,
    ResourceExhausted,
)

LENGTH = struct.Struct("!I")

Message = list[Any]

_ERRORS: dict[str, type[NoderuntimeError]] = {
    kind.__name__: kind for kind in (DataLoss, HostError, Internal, InvalidArgument, ResourceExhausted)
}


def packed(message: Message) -> bytes:
    """Return a message as it travels."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def unpacked(body: bytes) -> Message:
    """Return what a message without its length says."""
    message: Message = json.loads(body)
    return message


def failure(error: NoderuntimeError) -> Message:
    """Put an error into a message."""
    if isinstance(error, HostError):
        return ["failed", "HostError", error.action, error.errno, error.reason]
    return ["failed", type(error).__name__, str(error)]


def error_of(name: str, *arguments: Any) -> NoderuntimeError:
    """Return the error that a worker met."""
    return _ERRORS[name](*arguments)
