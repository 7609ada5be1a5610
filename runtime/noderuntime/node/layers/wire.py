"""The protocol between the daemon and a worker, on a stream socket.

=========  =====================================  ==================================================
sender     message                                meaning
=========  =====================================  ==================================================
daemon     ``["unpack", TARGET, *LIMITS]``        start a job; the layer's descriptor is attached
worker     ``["beyond", OFFSET]``                 wait for more than OFFSET bytes of the layer
daemon     ``["available", SIZE, COMPLETE]``      SIZE bytes can be read; COMPLETE: there are no more
worker     ``["unpacked", *UNPACKED]``            the job is done; the worker is idle
worker     ``["failed", ERROR, *ARGUMENTS]``      the job failed, the target is incomplete; idle
=========  =====================================  ==================================================

A message is its length followed by JSON.
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


def encode(message: Message) -> bytes:
    """Return a message as bytes, with its length."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """Return the message of a body, which does not include the length."""
    message: Message = json.loads(body)
    return message


def failure(error: NoderuntimeError) -> Message:
    """Return the message ``failed`` for an error."""
    if isinstance(error, HostError):
        return ["failed", "HostError", error.action, error.errno, error.reason]
    return ["failed", type(error).__name__, str(error)]


def error_of(name: str, *arguments: Any) -> NoderuntimeError:
    """Return the error of a message ``failed``."""
    return _ERRORS[name](*arguments)
