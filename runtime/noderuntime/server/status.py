"""The one place that turns errors into gRPC status."""

from __future__ import annotations

from typing import Any, Never

import grpc

from noderuntime import errors, log
from noderuntime.router.upstream import UpstreamStatus

_log = log.get(__name__)

_CODES: tuple[tuple[type[errors.NoderuntimeError], grpc.StatusCode], ...] = (
    (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.DataLoss, grpc.StatusCode.DATA_LOSS),
    (errors.Unimplemented, grpc.StatusCode.UNIMPLEMENTED),
    (errors.NoderuntimeError, grpc.StatusCode.INTERNAL),
)
_DETAILS_LIMIT = 2000
"""Characters; gRPC clients drop a connection whose headers pass 8 KiB."""


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the code and the one line that the caller gets for an error of ours."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, " ".join(str(error).split())[:_DETAILS_LIMIT]
    return grpc.StatusCode.INTERNAL, f"internal error ({type(error).__name__}); the daemon's log has more"


async def abort(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> Never:
    """End a call with the status that the error stands for; what the upstream said goes on unchanged."""
    if isinstance(error, UpstreamStatus):
        await context.abort(error.code, error.details, error.trailing)
    code, details = status_of(error)
    if not isinstance(error, errors.NoderuntimeError):
        _log.exception("a call failed in an unforeseen way", method=method)
    elif code is grpc.StatusCode.INTERNAL:
        _log.warning("a call failed", method=method, error=details)
    await context.abort(code, details)
