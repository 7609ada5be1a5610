from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

from bench.chart import draw

_DOCS = Path(__file__).parents[3] / "docs"


def _texts(svg: str) -> list[str]:
    return [
        "".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")
    ]


def test_chart_names_each_metric_with_its_ratio() -> None:
    texts = _texts(draw({"start <1>": {"ratio": 0.5}, "list": {"ratio": 2.0}}))
    assert texts[2:6] == ["start <1>", "0.50", "list", "2.00"]


def test_chart_omits_metrics_without_a_comparable_ratio() -> None:
    figures = {
        "images": {"small": 1},
        "one side": {"ratio": None},
        "log": {"ratio": 5, "unit": "more is better"},
    }
    assert draw(figures) == draw({})


def test_committed_chart_is_drawn_from_the_committed_figures() -> None:
    figures = json.loads((_DOCS / "performance.json").read_text(encoding="utf-8"))
    drawn = (_DOCS / "performance.svg").read_text(encoding="utf-8")
    assert drawn == draw(figures), "run `python -m bench.chart docs/performance.json docs/performance.svg`"


def test_committed_figures_are_those_of_the_tables() -> None:
    figures = json.loads((_DOCS / "performance.json").read_text(encoding="utf-8"))
    tables = (_DOCS / "performance.md").read_text(encoding="utf-8")
    ratios = set(map(float, re.findall(r"\d+\.\d+", tables)))
    assert {entry["ratio"] for entry in figures.values()} <= ratios
