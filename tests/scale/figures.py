"""The figures of a run, printed as a table with targets and written as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"
_HEAD = f"{'':56}{'measured':>10}{'target':>9}{'ratio':>8}"


@dataclass(frozen=True)
class Figure:
    """One measured value. Less is better; a figure without a target is information."""

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value divided by its target."""
        return round(self.value / self.target, 2) if self.target else None

    def __str__(self) -> str:
        target = "" if self.target is None else f"{self.target:g}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return f"{f'{self.name}, {self.unit}':56}{self.value:>10.4g}{target:>9}{ratio:>8}"


class Figures:
    """All figures of one run, printed as they are measured."""

    def __init__(self) -> None:
        self._stages: dict[str, list[Figure]] = {}
        self._current: list[Figure] = []

    def stage(self, title: str) -> None:
        """Print the title of the stage that the next figures belong to."""
        self._current = self._stages[title] = []
        print(f"\n{title}\n{_HEAD}", flush=True)

    def add(self, name: str, value: float, unit: str, target: float | None = None) -> None:
        """Add and print one figure."""
        figure = Figure(name, round(value, 4), unit, target)
        self._current.append(figure)
        print(figure, flush=True)

    def write(self, **about: object) -> Path:
        """Write ``build/bench/scale.json`` and return its path."""
        _BUILD.mkdir(parents=True, exist_ok=True)
        path = _BUILD / "scale.json"
        stages = {
            title: [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
            for title, figures in self._stages.items()
        }
        path.write_text(json.dumps({**about, "stages": stages}, indent=2) + "\n", encoding="utf-8")
        return path
