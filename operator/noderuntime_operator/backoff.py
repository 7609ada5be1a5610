"""Exponential backoff with full jitter: many clients that failed together do not retry together."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass
class Backoff:
    """The delays, in seconds, between the attempts at one thing."""

    first: float
    longest: float
    failures: int = 0

    def next(self) -> float:
        """Count a failure and return the delay until the next attempt."""
        bound = min(self.longest, self.first * 2 ** min(self.failures, 16))
        self.failures += 1
        return random.uniform(0, bound)  # noqa: S311 - spreads load, needs no secrecy

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self.failures = 0
