"""``python -m bench.chart JSON SVG``: draw a bar chart of noderuntime relative to containerd.

The JSON has the format of ``build/bench/*.json``; one bar is drawn for each metric with a ratio, in the
file's order. The chart has a background of its own, so it is readable on a light and on a dark page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _MARGIN = 780, 24
_LABELS, _NUMBERS, _BARS = 310, 352, 364
"""Right edge of the labels, right edge of the numbers, left edge of the bars."""
_ROW, _BAR = 26, 14
_TOP, _BOTTOM = 76, 40

_PAPER, _INK, _GREY, _AHEAD, _BEHIND = "#ffffff", "#1f2933", "#7b8794", "#2f855a", "#c05621"
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

_TITLE = "noderuntime relative to containerd"
_SUBTITLE = "Ratio of medians, measured in turns on one machine. Shorter is better; the line is containerd."


def draw(figures: Mapping[str, Any]) -> str:
    """Return the chart as SVG, without the metrics of which more is better."""
    ratios = {name: entry["ratio"] for name, entry in figures.items() if _is_drawn(entry)}
    unit = (_WIDTH - _MARGIN - _BARS) / max([1.0, *ratios.values()])
    end = _TOP + _ROW * len(ratios)
    height, one = end + _BOTTOM, _BARS + unit
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{_TITLE}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="10" fill="{_PAPER}"/>',
        f'<g font-family="{_FONT}" font-size="14" fill="{_INK}">',
        f'<text x="{_MARGIN}" y="34" font-size="18" font-weight="bold">{_TITLE}</text>',
        f'<text x="{_MARGIN}" y="56" fill="{_GREY}">{_SUBTITLE}</text>',
    ]
    for number, (name, ratio) in enumerate(ratios.items()):
        lines += _row(name, ratio, _TOP + _ROW * number, unit)
    lines += [
        f'<path d="M{one:.1f} {_TOP - 4}V{end + 4}" stroke="{_INK}" stroke-dasharray="4 3"/>',
        f'<text x="{one:.1f}" y="{end + 22}" text-anchor="middle">containerd = 1</text>',
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _is_drawn(entry: Any) -> bool:
    """Return whether an entry of the JSON is a metric with a ratio of which less is better."""
    if not isinstance(entry, Mapping) or entry.get("ratio") is None:
        return False
    return "more is better" not in entry.get("unit", "")


def _row(name: str, ratio: float, top: int, unit: float) -> list[str]:
    """Return the label, the number and the bar of one metric."""
    baseline, colour = top + _ROW // 2 + 5, _AHEAD if ratio <= 1 else _BEHIND
    bar = f'x="{_BARS}" y="{top + (_ROW - _BAR) // 2}" width="{ratio * unit:.1f}" height="{_BAR}"'
    return [
        f'<text x="{_LABELS}" y="{baseline}" text-anchor="end">{escape(name)}</text>',
        f'<text x="{_NUMBERS}" y="{baseline}" text-anchor="end" font-weight="bold">{ratio:.2f}</text>',
        f'<rect {bar} rx="2" fill="{colour}"/>',
    ]


def main() -> None:
    """Draw the JSON named first into the SVG named second."""
    source, target = map(Path, sys.argv[1:3])
    target.write_text(draw(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
