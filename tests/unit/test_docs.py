"""The documentation refers only to what exists, and names every package and every reason of a condition."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("package", ["noderuntime_operator", "kubectl_noderuntime"])
def test_architecture_names_every_module_of(package: str) -> None:
    modules = {path.stem for path in (_ROOT / "operator" / package).rglob("*.py")}
    text = (_ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert modules - {"__init__", "__main__", "settings"} - set(re.findall(r"`(\w+)`", text)) == set()


_STATUS = _ROOT / "operator/noderuntime_operator/status"
_AGENT = _RUNTIME / "agent"
_REPORTERS = [
    *(_STATUS / "conditions.py", _STATUS / "findings.py"),
    *(_AGENT / "node.py", _AGENT / "loop.py", _AGENT / "report.py"),
    *(_AGENT / "switch" / f"{name}.py" for name in ("run", "revert", "fallback", "upgrade_steps")),
]
"""The modules that give reasons to the conditions of NodeRuntimes and instances."""
_NO_REASONS = {
    *("Available", "Ready", "Progressing", "Degraded", "Switched"),  # conditions
    *("Failed", "Upgrading", "Reverting", "Broken", "Unknown", "Installed"),  # phases and states
    *("Upstream", "Noderuntime", "Manual", "Replace"),  # the kubelet's runtime and mode
    *("True", "False", "ActiveState"),
}
"""Constants of these modules that look like reasons."""


@pytest.mark.parametrize("module", _REPORTERS, ids=lambda path: path.stem)
def test_troubleshooting_names_every_reason_of(module: Path) -> None:
    constants = {
        node.value for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Constant)
    }
    words = {
        found for found in constants if isinstance(found, str) and re.fullmatch(r"([A-Z][a-z]+)+", found)
    }
    named = set(re.findall(r"`(\w+)`", (_ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")))
    assert words - _NO_REASONS - named == set(), "add the reason to docs/troubleshooting.md"


@pages
def test_links_of_a_page_resolve(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_anchors_of_a_page_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    found = [
        (name, anchor)
        for name, anchor in links
        if anchor not in _anchors(page.parent / name if name else page)
    ]
    assert found == []


@pages
def test_python_files_named_by_a_page_exist(page: Path) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)", page.read_text(encoding="utf-8"))
    assert [file for file in named if not ((_ROOT / file).exists() or (_RUNTIME / file).exists())] == []
