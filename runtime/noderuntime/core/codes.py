"""The table of our errors and gRPC's status codes, for both directions."""

from __future__ import annotations

import grpc

from noderuntime.core import errors

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
)


def code_of(error: Exception) -> grpc.StatusCode:
    """Return the status code of an error; INTERNAL for errors that are not ours."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def error_of(code: grpc.StatusCode) -> type[errors.NoderuntimeError]:
    """Return the error class of a status code; Internal for codes that we do not send."""
    return next((kind for kind, known in _CODES if known is code), errors.Internal)
