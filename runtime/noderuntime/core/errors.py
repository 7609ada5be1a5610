"""Everything that can go wrong, as one tree; the server maps it to gRPC status in one place.

NoderuntimeError
├── InvalidArgument      the caller sent something that can never work
├── NotFound             no such sandbox, container, image or handler
├── AlreadyExists        the name is taken by another object
├── FailedPrecondition   right call, wrong state (exec into a stopped container)
├── Unavailable          a part we depend on is away; the same call may work later
├── DeadlineExceeded     a part did not answer in time
├── ResourceExhausted    a limit of ours or the node's (disk full, message too large)
├── PermissionDenied     a registry wants credentials, or does not accept these
├── DataLoss             what came is not what was promised (wrong digest, cut short)
├── Unimplemented        CRI knows it, we do not offer it (yet)
└── Internal             a tool or the kernel refused something it should not have
    ├── ToolError        runc, runsc, conmon or a CNI plugin failed; carries its own words
    └── HostError        a system call failed; carries errno

Messages are one line, say what failed and, where it helps, what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class NoderuntimeError(Exception):
    """Base of all errors that a caller may see."""


class InvalidArgument(NoderuntimeError):
    """The request can never work as it is."""


class NotFound(NoderuntimeError):
    """The object named in the request does not exist."""


class AlreadyExists(NoderuntimeError):
    """The name in the request belongs to another object."""


class FailedPrecondition(NoderuntimeError):
    """The object is not in a state that allows the call."""


class Unavailable(NoderuntimeError):
    """Something we depend on is away; the call may be repeated."""


class DeadlineExceeded(NoderuntimeError):
    """Something did not answer in time."""


class ResourceExhausted(NoderuntimeError):
    """A limit was reached."""


class PermissionDenied(NoderuntimeError):
    """Somebody else does not let us."""


class DataLoss(NoderuntimeError):
    """Data is not what it was promised to be."""


class Unimplemented(NoderuntimeError):
    """CRI defines it, this runtime does not offer it."""


class Internal(NoderuntimeError):
    """Something failed that should not have."""


class ToolError(Internal):
    """A tool that we run failed."""

    def __init__(self, tool: str, action: str, returncode: int, words: str) -> None:
        self.tool = tool
        self.action = action
        self.returncode = returncode
        self.words = words
        super().__init__(
            f"{tool} {action} failed with exit status {returncode}: {words or 'it said nothing'}"
        )


class HostError(Internal):
    """A system call failed."""

    def __init__(self, action: str, errno: int, reason: str) -> None:
        self.action = action
        self.errno = errno
        self.reason = reason
        super().__init__(f"{action}: {reason} (errno {errno})")


def host_error(action: str, error: OSError) -> HostError:
    """Return the HostError for a failed system call; ``action`` says what it was for."""
    return HostError(action, error.errno or 0, error.strerror or str(error))


def file_error(action: str, error: OSError) -> HostError | ResourceExhausted:
    """Return ResourceExhausted for a full disk or quota, HostError for everything else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"{action}: the disk is full ({error.strerror})")
    return host_error(action, error)


def invalid_argument(subject: str, error: OSError) -> InvalidArgument:
    """Return InvalidArgument for what a caller named and the kernel refused."""
    return InvalidArgument(f"{subject}: {error.strerror or error}")


@contextmanager
def os_errors(action: str, make: Callable[[str, OSError], NoderuntimeError] = host_error) -> Iterator[None]:
    """Raise each OSError of the block as an error of ours, made by one of the functions above."""
    try:
        yield
    except OSError as error:
        raise make(action, error) from error


def first_problem(error: ValidationError) -> str:
    """Return the first problem that pydantic found, as ``field.path: message`` of at most 400 characters."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part)[:40] for part in problem["loc"])[:200]
    return f"{where}: {problem['msg'][:200]}" if where else problem["msg"][:200]
