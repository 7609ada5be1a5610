"""How far pulls are, and how they went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["waiting", "downloading", "unpacking", "done"]


@dataclass(slots=True)
class LayerProgress:
    """How far one layer is."""

    digest: str
    """Of its compressed form."""
    size: int
    """Bytes of its compressed form."""
    received: int = 0
    """Bytes that are there, those of an earlier pull included."""
    stage: Stage = "waiting"


@dataclass(slots=True)
class Progress:
    """How far a pull is; the layers are known once its manifest is there."""

    reference: str
    layers: list[LayerProgress] = field(default_factory=list)
    watchers: list[Watch] = field(default_factory=list, repr=False)
    """Are told of every change, some hundred times a second at most; must not block or raise."""

    def changed(self) -> None:
        """Tell the watchers."""
        for watch in self.watchers:
            watch(self)


Watch = Callable[[Progress], None]


@dataclass(slots=True)
class PullCounters:
    """What all pulls since the start came to."""

    succeeded: int = 0
    received: int = 0
    """Bytes of layers that came over the network."""
    seconds: float = 0.0
    """Spent in pulls, each one counted for itself."""
    failed: Counter[str] = field(default_factory=Counter)
    """By reason: the name of the error's kind, or ``Cancelled``."""
