"""The tree of all errors. The server maps it to gRPC status codes in one place.

NoderuntimeError
├── InvalidArgument      the request can never succeed as it is
├── NotFound             no such sandbox, container, image or handler
├── AlreadyExists        the name belongs to another object
├── FailedPrecondition   the object's state does not allow the call (exec into a stopped container)
├── Unavailable          a dependency is not available; a retry can succeed
├── DeadlineExceeded     a dependency did not respond in time
├── ResourceExhausted    a limit of ours or the node's (disk full, message too large)
├── PermissionDenied     a registry requires credentials, or does not accept these
├── DataLoss             content does not match its descriptor (wrong digest, truncated)
├── Unimplemented        CRI defines it, this runtime does not support it
└── Internal             a tool or the kernel failed unexpectedly
    ├── ToolError        runc, runsc, conmon or a CNI plugin failed; contains its output
    └── HostError        a system call failed; contains errno

Messages are one line: what failed and, where it helps, what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class NoderuntimeError(Exception):
    """The base of all errors that a caller can receive."""


class InvalidArgument(NoderuntimeError):
    """The request can never succeed as it is."""


class NotFound(NoderuntimeError):
    """The object named in the request does not exist."""


class AlreadyExists(NoderuntimeError):
    """The name in the request belongs to another object."""


class FailedPrecondition(NoderuntimeError):
    """The object's state does not allow the call."""


class Unavailable(NoderuntimeError):
    """A dependency is not available. A retry can succeed."""


class DeadlineExceeded(NoderuntimeError):
    """A dependency did not respond in time."""


class ResourceExhausted(NoderuntimeError):
    """A limit was reached."""


class PermissionDenied(NoderuntimeError):
    """A registry requires credentials, or does not accept these."""


class DataLoss(NoderuntimeError):
    """Content does not match its descriptor."""


class Unimplemented(NoderuntimeError):
    """CRI defines it, this runtime does not support it."""


class Internal(NoderuntimeError):
    """Something failed unexpectedly."""


class ToolError(Internal):
    """A program that we run failed."""

    def __init__(self, tool: str, action: str, returncode: int, output: str) -> None:
        self.tool = tool
        self.action = action
        self.returncode = returncode
        self.output = output
        super().__init__(f"{tool} {action} failed with exit status {returncode}: {output or 'no output'}")


class HostError(Internal):
    """A system call failed."""

    def __init__(self, action: str, errno: int, reason: str) -> None:
        self.action = action
        self.errno = errno
        self.reason = reason
        super().__init__(f"{action}: {reason} (errno {errno})")


def host_error(action: str, error: OSError) -> HostError:
    """Return the HostError for a failed system call. ``action`` names the operation in the message."""
    return HostError(action, error.errno or 0, error.strerror or str(error))


def file_error(action: str, error: OSError) -> HostError | ResourceExhausted:
    """Return ResourceExhausted for a full disk or quota, HostError for other errors."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"{action}: the disk is full ({error.strerror})")
    return host_error(action, error)


def invalid_argument(subject: str, error: OSError) -> InvalidArgument:
    """Return InvalidArgument for a system call that failed on a caller's input."""
    return InvalidArgument(f"{subject}: {error.strerror or error}")


@contextmanager
def os_errors(action: str, make: Callable[[str, OSError], NoderuntimeError] = host_error) -> Iterator[None]:
    """Raise each OSError of the block as the error that ``make``, a function above, returns."""
    try:
        yield
    except OSError as error:
        raise make(action, error) from error


def first_problem(error: ValidationError) -> str:
    """Return pydantic's first error as ``field.path: message`` of at most 400 characters."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part)[:40] for part in problem["loc"])[:200]
    return f"{where}: {problem['msg'][:200]}" if where else problem["msg"][:200]
