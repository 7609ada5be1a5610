"""The progress of pulls, and their counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["waiting", "downloading", "unpacking", "done"]


@dataclass(slots=True)
class LayerProgress:
    """The progress of one layer."""

    digest: str
    """Digest of its compressed form."""
    size: int
    """Bytes of its compressed form."""
    received: int = 0
    """Bytes received, those of an earlier pull included."""
    stage: Stage = "waiting"


@dataclass(slots=True)
class Progress:
    """The progress of a pull. ``layers`` is filled once the manifest has been read."""

    reference: str
    layers: list[LayerProgress] = field(default_factory=list)
    watchers: list[Watch] = field(default_factory=list, repr=False)
    """Called after every change, some hundred times a second at most; they must not block or raise."""

    def changed(self) -> None:
        """Call the watchers."""
        for watch in self.watchers:
            watch(self)


Watch = Callable[[Progress], None]


@dataclass(slots=True)
class PullCounters:
    """Counters of all pulls since the start."""

    succeeded: int = 0
    received: int = 0
    """Bytes of layers received over the network."""
    seconds: float = 0.0
    """Sum of the durations of all pulls."""
    failed: Counter[str] = field(default_factory=Counter)
    """By reason: the name of the error's class, or ``Cancelled``."""
