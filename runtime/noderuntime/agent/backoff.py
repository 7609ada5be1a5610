"""Pauses between attempts, so that thousands of agents do not return to an API server at once."""

from __future__ import annotations

import random

FIRST_SECONDS, LONGEST_SECONDS = 30.0, 60.0


class Backoff:
    """Exponential backoff with full jitter: each pause is random, from 0 to a limit that doubles.

    Already the first pause is long: an API server that restarts loses the watches of all agents in the
    same second. An agent misses nothing by it, because it reconciles its node with the last known spec.
    """

    def __init__(self, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        self._first, self._longest = first, longest
        self._limit = first

    def reset(self) -> None:
        """Begin again with the first limit, after a success."""
        self._limit = self._first

    def pause(self) -> float:
        """Return the next pause in seconds."""
        limit, self._limit = self._limit, min(2 * self._limit, self._longest)
        return random.uniform(0, limit)  # noqa: S311 - spreads load; not a secret
