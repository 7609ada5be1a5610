"""The claim of one agent on its node: agents of two releases must not take turns in changing it.

The claim is a lock (flock(2)) on a file of the node. The kernel releases it when its holder ends, in whatever
way. The file's content says who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from noderuntime.agent.switch.journal import now
from noderuntime.core import log
from noderuntime.core.errors import file_error, os_errors

_log = log.get(__name__)

_LIMIT = 4096


class Holder(BaseModel):
    """The agent that holds a node."""

    model_config = ConfigDict(frozen=True)

    pod: str
    """NAMESPACE/NAME."""
    image: str
    since: datetime

    def __str__(self) -> str:
        return f"the agent {self.pod} (image {self.image}) has held this node since {self.since:%F %T} UTC"


class Claim:
    """The claim of an agent. At most one agent of a node holds it."""

    def __init__(self, path: Path, pod: str, image: str) -> None:
        self._path = path
        self._pod = pod
        self._image = image
        self._descriptor: int | None = None
        self._other: str | None = None

    def take(self) -> str | None:
        """Take the claim. Return None if this agent holds it, else one line that names the holder.

        A claim whose file was removed with the node's installation is taken again. HostError if the file
        cannot be opened.
        """
        if self._descriptor is not None and self._is_valid(self._descriptor):
            return None
        self.release()
        other = self._lock()
        if other and other != self._other:
            _log.warning("another agent holds the node, which stays unchanged", holder=other)
        self._other = other
        return other

    def holder(self) -> str | None:
        """Return one line that names another agent which holds the claim, or None. Does not take the claim.

        HostError if the file cannot be opened.
        """
        with os_errors(f"open {self._path}", file_error):
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(descriptor)
            finally:
                os.close(descriptor)
        return None

    def release(self) -> None:
        """Release the claim, so that another agent can take it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self) -> str | None:
        """Lock the file and name this agent in it, or return its holder."""
        with os_errors(f"open {self._path}", file_error):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other = _read(descriptor)
                os.close(descriptor)
                return other
        self._descriptor = descriptor
        self._write(descriptor)
        return None

    def _is_valid(self, descriptor: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self._path.lstat())
        return False

    def _write(self, descriptor: int) -> None:
        """Name this agent in the file. A full disk does not invalidate the claim."""
        holder = Holder(pod=self._pod, image=self._image, since=now())
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.model_dump_json().encode(), 0)
        except OSError as error:
            _log.warning("the agent could not be named in its claim", path=self._path, error=error)


def _read(descriptor: int) -> str:
    try:
        return str(Holder.model_validate_json(os.pread(descriptor, _LIMIT, 0)))
    except ValidationError:
        return "another agent holds this node"
