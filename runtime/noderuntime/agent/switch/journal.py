"""What the switch keeps on disk: the journal of a transaction and the result of its last run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from noderuntime.agent import durable_files as files
from noderuntime.agent.switch.plan import ConfiguredBy, Edit
from noderuntime.core.errors import Internal

Model = TypeVar("Model", bound=BaseModel)


class JournalFile(BaseModel):
    """One file of the kubelet: as it was, as the switch made it, and its mode. Text as UTF-8."""

    model_config = ConfigDict(frozen=True)

    path: Path
    before: str | None
    after: str | None

    def edit(self) -> Edit:
        """Return it as the edit that was made."""
        return Edit(self.path, self.before, self.after)


class Journal(BaseModel):
    """The old settings.

    ``Switching``: files may be changed, the kubelet may have been restarted, nothing is proven.
    ``Switched``: it was proven; the old settings are kept for the way back.
    ``Reverting``: on the way back. No journal: the kubelet is on its upstream.
    """

    model_config = ConfigDict(frozen=True)

    phase: Literal["Switching", "Switched", "Reverting"]
    unit: str
    configured_by: ConfiguredBy
    upstream: str
    """Endpoint (``unix://…``) that the kubelet had."""
    healthz_port: int
    timeout_seconds: int
    files: tuple[JournalFile, ...]


class Result(BaseModel):
    """How the last run ended; the agent reads it."""

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
    """How often in a row this revision failed."""


def now() -> datetime:
    """Return the time as records keep it."""
    return datetime.now(UTC).replace(microsecond=0)


def load_journal(path: Path) -> Journal | None:
    """Return the journal; None if the kubelet is on its upstream. Internal if it cannot be read."""
    return _load(path, Journal)


def load_result(path: Path) -> Result | None:
    """Return the last result; None if there is none, or none that this version understands."""
    try:
        return _load(path, Result)
    except Internal:
        return None


def save(path: Path, record: BaseModel) -> None:
    """Write a record so that it survives a power cut."""
    files.write(path, record.model_dump_json(indent=1).encode() + b"\n", mode=0o600)


def _load(path: Path, model: type[Model]) -> Model | None:
    content = files.read(path)
    if content is None:
        return None
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise Internal(f"{path} cannot be understood: {error.errors()[0]['msg']}") from error
