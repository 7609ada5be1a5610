"""Samples of both sides by metric, printed as a table and written as JSON."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bench.chart import draw
from bench.machine import Idle

Side = Literal["noderuntime", "containerd"]
SIDES: tuple[Side, Side] = ("noderuntime", "containerd")

_BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"
_HEAD = f"{'':58}{'noderuntime':>12}{'containerd':>12}{'ratio':>7}{'p95':>11}{'p95':>11}{'n':>4}"


class Figures:
    """All samples of one run. Less is better, unless the unit says otherwise."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[Side, list[float]]] = defaultdict(lambda: {side: [] for side in SIDES})
        self._units: dict[str, str] = {}
        self._idle: dict[str, float] = {}

    def add(self, metric: str, side: Side, value: float, unit: str = "ms") -> None:
        """Add one sample."""
        self._samples[metric][side].append(value)
        self._units[metric] = unit

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """Print the metrics measured in the block, with the machine's idle fraction during it."""
        before, idle = set(self._samples), Idle()
        yield
        fraction = round(idle.fraction(), 2)
        print(f"\n{title} (machine {fraction:.0%} idle)\n{_HEAD}", flush=True)
        for metric in self._samples:
            if metric not in before:
                self._idle[metric] = fraction
                print(self._line(metric), flush=True)

    def write(self, name: str, **about: object) -> Path:
        """Write ``build/bench/NAME`` and a chart of it beside it; return the path of the JSON.

        The JSON is ``{metric: {noderuntime, containerd, ratio, …}}``; the values are medians.
        """
        _BUILD.mkdir(parents=True, exist_ok=True)
        path = _BUILD / name
        result = {metric: self._entry(metric) for metric in self._samples}
        path.write_text(json.dumps({**about, **result}, indent=2) + "\n", encoding="utf-8")
        path.with_suffix(".svg").write_text(draw(result), encoding="utf-8")
        return path

    def _entry(self, metric: str) -> dict[str, object]:
        samples = self._samples[metric]
        ours, theirs = (_middle(samples[side]) for side in SIDES)
        return {
            "noderuntime": ours,
            "containerd": theirs,
            "ratio": round(ours / theirs, 3) if ours is not None and theirs else None,
            "p95": {side: _high(samples[side]) for side in SIDES},
            "samples": max(len(samples[side]) for side in SIDES),
            "unit": self._units[metric],
            "idle": self._idle.get(metric),
        }

    def _line(self, metric: str) -> str:
        entry, samples = self._entry(metric), self._samples[metric]
        values = (entry["noderuntime"], entry["containerd"], *(_high(samples[side]) for side in SIDES))
        ours, theirs, *high = (f"{value:.5g}" if value is not None else "-" for value in values)
        ratio = "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        name = f"{metric}, {self._units[metric]}"
        return f"{name:58}{ours:>12}{theirs:>12}{ratio:>7}{high[0]:>11}{high[1]:>11}{entry['samples']:>4}"


def _middle(values: list[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def _high(values: list[float]) -> float | None:
    """Return the 95th percentile, or None for less than two values."""
    if len(values) < 2:
        return None
    return round(statistics.quantiles(values, n=20, method="inclusive")[-1], 3)
