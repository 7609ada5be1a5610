"""The switch's files on disk: the journal of a transaction and the result of the last run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from noderuntime.agent.switch.plan import ConfiguredBy, Edit
from noderuntime.core import durable_files as files
from noderuntime.core.errors import Internal, first_problem

Model = TypeVar("Model", bound=BaseModel)


class JournalFile(BaseModel):
    """A file of the kubelet: its content before and after the switch's edit. None means no file."""

    model_config = ConfigDict(frozen=True)

    path: Path
    before: str | None
    after: str | None

    def edit(self) -> Edit:
        """Return the edit that the switch made."""
        return Edit(self.path, self.before, self.after)


class Journal(BaseModel):
    """The kubelet's previous settings and the phase of the transaction.

    ``Switching``: files may have been changed and the kubelet restarted; its health is not verified.
    ``Switched``: the kubelet is healthy on noderuntime; the previous settings are kept for a revert.
    ``Reverting``: the previous settings are being restored. No journal: the kubelet uses its upstream.
    """

    model_config = ConfigDict(frozen=True)

    phase: Literal["Switching", "Switched", "Reverting"]
    unit: str
    configured_by: ConfiguredBy
    upstream: str
    """The kubelet's previous endpoint (``unix://…``)."""
    healthz_port: int
    timeout_seconds: int
    files: tuple[JournalFile, ...]


class Result(BaseModel):
    """The result of the last run, which the agent reads."""

    model_config = ConfigDict(frozen=True)

    revision: str
    outcome: Literal["Switched", "Manual", "Failed"]
    reason: str
    message: str
    kubelet: Literal["Upstream", "Noderuntime"]
    configured_by: ConfiguredBy | None = None
    upstream_socket: str | None = None
    finished: datetime
    failures: int = 0
    """Consecutive failures of this revision."""
    shared_handlers: tuple[str, ...] = ()
    """Names of our handlers that the upstream has too."""


def now() -> datetime:
    """Return the current time in UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def load_journal(path: Path) -> Journal | None:
    """Return the journal, or None if the kubelet uses its upstream. Internal if it is invalid."""
    return load(path, Journal)


def load_result(path: Path) -> Result | None:
    """Return the last result, or None if it does not exist or this version cannot parse it."""
    try:
        return load(path, Result)
    except Internal:
        return None


def save(path: Path, record: BaseModel) -> None:
    """Write a journal or a result durably."""
    files.write(path, record.model_dump_json(indent=1).encode() + b"\n", mode=0o600)


def load(path: Path, model: type[Model]) -> Model | None:
    """Return a record, or None if its file does not exist. Internal if it is invalid."""
    content = files.read(path)
    if content is None:
        return None
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise Internal(f"{path} cannot be parsed: {first_problem(error)}") from error
