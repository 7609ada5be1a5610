"""The mapping of errors to gRPC status."""

from __future__ import annotations

import asyncio
from typing import Any, Never

import grpc

from noderuntime.core import errors, log
from noderuntime.core.codes import code_of
from noderuntime.edge.router.upstream import UpstreamStatus

_log = log.get(__name__)

_DETAILS_LIMIT = 2000
"""Characters. gRPC clients drop a connection whose headers exceed 8 KiB."""


def ended_with(error: Exception) -> grpc.StatusCode:
    """Return the code with which :func:`end` ends a call for this error."""
    if isinstance(error, UpstreamStatus):
        return error.code
    return grpc.StatusCode.CANCELLED if isinstance(error, grpc.aio.InternalError) else code_of(error)


def caller_left() -> bool:
    """Return whether gRPC has cancelled the current call: its client left, or the server stops."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the code and the details that the caller gets for an error; one line unless the upstream's."""
    if isinstance(error, UpstreamStatus):
        return error.code, error.details
    if isinstance(error, errors.NoderuntimeError):
        return code_of(error), " ".join(str(error).split())[:_DETAILS_LIMIT]
    return code_of(error), f"internal error ({type(error).__name__}); the daemon's log has more"


async def end(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> Never:
    """End a call with the status of its error. The status of the upstream is passed on unchanged.

    A failure that the caller cannot know, or cannot explain, is logged once.
    """
    if isinstance(error, grpc.aio.InternalError):  # a message to a client that has left
        raise asyncio.CancelledError from error
    left = caller_left()
    if not isinstance(error, UpstreamStatus):
        _report(method, error, left=left)
    if left:
        raise asyncio.CancelledError
    await context.abort(*status_of(error), error.trailing if isinstance(error, UpstreamStatus) else ())


def _report(method: str, error: Exception, *, left: bool) -> None:
    code, details = status_of(error)
    if not isinstance(error, errors.NoderuntimeError):
        _log.exception("call failed unexpectedly", method=method)
    elif left:
        _log.warning("call failed after its caller had left", method=method, error=details)
    elif code is grpc.StatusCode.INTERNAL:
        _log.warning("call failed", method=method, error=details)
