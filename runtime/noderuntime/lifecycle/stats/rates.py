"""CPU use as a rate: what changed since an earlier look, in nanocores.

Callers come at their own pace, some twice within milliseconds; a rate needs at
least a second between two looks, so the last one is told again until then.
"""

from __future__ import annotations

from dataclasses import dataclass

_MIN_SPAN = 1_000_000_000
_MAX_AGE = 600_000_000_000


@dataclass(slots=True)
class _Look:
    timestamp: int
    cpu: int
    rate: int | None


class Rates:
    """Remembers one look for each cgroup; those not looked at for ten minutes are forgotten."""

    def __init__(self) -> None:
        self._looks: dict[str, _Look] = {}
        self._swept_at = 0

    def update(self, key: str, timestamp: int, cpu: int) -> int | None:
        """Return the rate in nanocores; None until there are two looks. Times in nanoseconds."""
        self._sweep(timestamp)
        last = self._looks.get(key)
        if last is None or cpu < last.cpu:
            self._looks[key] = _Look(timestamp, cpu, None)
            return None
        span = timestamp - last.timestamp
        if span >= _MIN_SPAN:
            rate = (cpu - last.cpu) * 1_000_000_000 // span
            self._looks[key] = _Look(timestamp, cpu, rate)
            return rate
        return last.rate

    def _sweep(self, now: int) -> None:
        if now - self._swept_at < _MAX_AGE:
            return
        self._swept_at = now
        self._looks = {key: look for key, look in self._looks.items() if now - look.timestamp < _MAX_AGE}
