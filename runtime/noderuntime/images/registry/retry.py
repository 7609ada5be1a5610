"""Decides which failures of a registry are retried, and after which pause."""

from __future__ import annotations

import tenacity

from noderuntime.core.errors import NoderuntimeError, ResourceExhausted, Unavailable
from noderuntime.images.remote import RetryPolicy

_FIRST_PAUSE = 0.25
"""Seconds, at most; doubled for each attempt."""


class Transient(NoderuntimeError):
    """A failure that a retry can resolve, after ``wait`` seconds if the server requested that."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(message)


class Broken(Transient, Unavailable):
    """The server or the connection to it failed."""


class Unresumable(Broken):
    """The server cannot send the rest of a blob, but may send the whole."""


class Limited(Transient, ResourceExhausted):
    """The server limits the rate of requests."""


def retrying(policy: RetryPolicy, stop: tenacity.stop.StopBaseT | None = None) -> tenacity.AsyncRetrying:
    """Retry until success, a permanent failure, or a requested pause above the limit."""

    def worth_another(error: BaseException) -> bool:
        return isinstance(error, Transient) and (error.wait or 0.0) <= policy.longest_wait_seconds

    growing = tenacity.wait_random_exponential(_FIRST_PAUSE, policy.longest_pause_seconds)

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return error.wait if isinstance(error, Transient) and error.wait is not None else growing(state)

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(worth_another),
        wait=pause,
        stop=stop or tenacity.stop_after_attempt(policy.attempts),
        reraise=True,
    )
