"""The documentation refers only to what exists, and the architecture page names every package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_RUNTIME = _ROOT / "runtime" / "noderuntime"
_FLOORS = ("edge", "lifecycle", "images", "node", "core")
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md")])
pages = pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))


def _modules(floor: str) -> set[str]:
    """Return the names of a floor's packages and modules."""
    found = {path.stem for path in (_RUNTIME / floor).glob("*.py")}
    return (found | {path.parent.name for path in (_RUNTIME / floor).glob("*/__init__.py")}) - {"__init__"}


@pytest.mark.parametrize("floor", _FLOORS)
def test_architecture_names_every_module_of_a_floor(floor: str) -> None:
    text = (_ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert _modules(floor) <= set(re.findall(r"`(\w+)`", text)), "add it to the table of docs/architecture.md"


def test_architecture_names_every_module_of_the_operator() -> None:
    operator = {path.stem for path in (_ROOT / "operator/noderuntime_operator").glob("*.py")}
    text = (_ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert operator - {"__init__", "__main__", "settings"} <= set(re.findall(r"`(\w+)`", text))


@pages
def test_links_of_a_page_resolve(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pages
def test_python_files_named_by_a_page_exist(page: Path) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)", page.read_text(encoding="utf-8"))
    assert [file for file in named if not ((_ROOT / file).exists() or (_RUNTIME / file).exists())] == []
