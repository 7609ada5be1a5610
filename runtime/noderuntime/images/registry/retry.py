"""Which failures of a registry may pass, and how long to wait for it."""

from __future__ import annotations

import tenacity

from noderuntime.core.errors import NoderuntimeError, ResourceExhausted, Unavailable
from noderuntime.images.remote import Patience

_FIRST_PAUSE = 0.25
"""Seconds, at most; doubled each time."""


class MayPass(NoderuntimeError):
    """A failure that may be over at the next attempt; ``wait`` seconds were asked for."""

    def __init__(self, words: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(words)


class Broken(MayPass, Unavailable):
    """The server or the connection to it failed."""


class Unresumable(Broken):
    """The server cannot give the rest of a blob; the whole may work."""


class Limited(MayPass, ResourceExhausted):
    """The server wants to be asked less often."""


def retrying(patience: Patience, stop: tenacity.stop.StopBaseT | None = None) -> tenacity.AsyncRetrying:
    """Make attempts until one succeeds, fails for good, or wants us to wait longer than we do."""

    def worth_another(error: BaseException) -> bool:
        return isinstance(error, MayPass) and (error.wait or 0.0) <= patience.longest_wait_seconds

    growing = tenacity.wait_random_exponential(_FIRST_PAUSE, patience.longest_pause_seconds)

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return error.wait if isinstance(error, MayPass) and error.wait is not None else growing(state)

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(worth_another),
        wait=pause,
        stop=stop or tenacity.stop_after_attempt(patience.attempts),
        reraise=True,
    )
