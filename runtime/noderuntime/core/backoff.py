"""Pauses between the attempts at one thing, in seconds."""

from __future__ import annotations

import random
from dataclasses import dataclass


def growing(failures: int, first: float, longest: float) -> float:
    """Return the pause after consecutive failures: ``first``, doubled up to ``longest``."""
    return min(longest, first * 2.0 ** min(failures - 1, 16))


def jittered(seconds: float) -> float:
    """Return about this pause, so that many nodes do not act in the same second."""
    return seconds * random.uniform(0.85, 1.15)  # noqa: S311 - spreads load; not a secret


@dataclass
class Backoff:
    """Exponential backoff with full jitter: each pause is random, from 0 to a limit that grows.

    Many clients that failed together do not return together.
    """

    first: float
    longest: float
    failures: int = 0

    def next(self) -> float:
        """Count a failure and return the pause before the next attempt."""
        self.failures += 1
        return random.uniform(0, growing(self.failures, self.first, self.longest))  # noqa: S311 - as above

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self.failures = 0
