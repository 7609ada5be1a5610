"""One-time tokens for sessions, with a limited lifetime."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from noderuntime.core.errors import ResourceExhausted
from noderuntime.core.sessions import Session

MOST = 1000
"""Limit on sessions that wait for their client."""
_BYTES = 32


class Tokens:
    """Sessions that wait for their client, by token. ``ttl`` is in seconds."""

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._waiting: dict[str, tuple[float, Session]] = {}
        """Oldest first, with the time of expiry."""

    def put(self, session: Session) -> str:
        """Store a session and return its token. ResourceExhausted if too many sessions wait."""
        self._drop_expired()
        if len(self._waiting) >= MOST:
            raise ResourceExhausted(f"{MOST} sessions already wait for their client; try again later")
        token = secrets.token_urlsafe(_BYTES)
        self._waiting[token] = (self._clock() + self._ttl, session)
        return token

    def take(self, token: str) -> Session | None:
        """Return the token's session and invalidate the token. None if it is unknown or expired."""
        self._drop_expired()
        _, session = self._waiting.pop(token, (0.0, None))
        return session

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._waiting:
            oldest = next(iter(self._waiting))
            if self._waiting[oldest][0] > now:
                return
            del self._waiting[oldest]
