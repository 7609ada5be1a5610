"""One-shot tokens: who has one may have the session behind it, once, and not for long."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from noderuntime.core.errors import ResourceExhausted
from noderuntime.core.sessions import Session

MOST = 1000
"""Sessions that may wait for their client."""
_BYTES = 32


class Tokens:
    """Sessions that wait. ``ttl`` is in seconds."""

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._waiting: dict[str, tuple[float, Session]] = {}
        """The oldest first, with the time at which it ends."""

    def put(self, session: Session) -> str:
        """Keep a session and return its token; ResourceExhausted when too many wait."""
        self._forget_old()
        if len(self._waiting) >= MOST:
            raise ResourceExhausted(f"{MOST} sessions wait for their client already; try again later")
        token = secrets.token_urlsafe(_BYTES)
        self._waiting[token] = (self._clock() + self._ttl, session)
        return token

    def take(self, token: str) -> Session | None:
        """Return the session and forget the token; None when there is none or it came too late."""
        self._forget_old()
        _, session = self._waiting.pop(token, (0.0, None))
        return session

    def _forget_old(self) -> None:
        now = self._clock()
        while self._waiting:
            oldest = next(iter(self._waiting))
            if self._waiting[oldest][0] > now:
                return
            del self._waiting[oldest]
