"""The one place that turns errors into gRPC status."""

from __future__ import annotations

from typing import Any, Never

import grpc

from noderuntime.core import errors, log
from noderuntime.core.codes import code_of
from noderuntime.edge.router.upstream import UpstreamStatus

_log = log.get(__name__)

_DETAILS_LIMIT = 2000
"""Characters; gRPC clients drop a connection whose headers pass 8 KiB."""


def ended_with(error: Exception) -> grpc.StatusCode:
    """Return the code with which :func:`abort` ends a call for this error."""
    return error.code if isinstance(error, UpstreamStatus) else code_of(error)


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the code and the one line that the caller gets for an error of ours."""
    if isinstance(error, errors.NoderuntimeError):
        return code_of(error), " ".join(str(error).split())[:_DETAILS_LIMIT]
    return code_of(error), f"internal error ({type(error).__name__}); the daemon's log has more"


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
