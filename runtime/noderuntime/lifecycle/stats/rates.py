"""CPU usage as a rate in nanocores: the change between two samples.

Callers sample at any interval, some twice within milliseconds. A rate needs at least a second between two
samples, so the last rate is returned until then.
"""

from __future__ import annotations

from dataclasses import dataclass

_MIN_SPAN = 1_000_000_000
_MAX_AGE = 600_000_000_000


@dataclass(slots=True)
class _Last:
    timestamp: int
    cpu: int
    rate: int | None


class Rates:
    """The last sample of each cgroup; those without a sample for ten minutes are dropped."""

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}
        self._swept_at = 0

    def update(self, key: str, timestamp: int, cpu: int) -> int | None:
        """Return the rate in nanocores, or None until there are two samples. Times in nanoseconds."""
        self._sweep(timestamp)
        last = self._last.get(key)
        if last is None or cpu < last.cpu:
            self._last[key] = _Last(timestamp, cpu, None)
            return None
        span = timestamp - last.timestamp
        if span >= _MIN_SPAN:
            rate = (cpu - last.cpu) * 1_000_000_000 // span
            self._last[key] = _Last(timestamp, cpu, rate)
            return rate
        return last.rate

    def _sweep(self, now: int) -> None:
        if now - self._swept_at < _MAX_AGE:
            return
        self._swept_at = now
        self._last = {key: last for key, last in self._last.items() if now - last.timestamp < _MAX_AGE}
