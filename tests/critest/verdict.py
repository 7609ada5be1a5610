"""Comparison of the suite's outcomes with the expected ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

Result = Literal["passed", "failed", "skipped"]

_SPEC = "[It] [k8s.io] "
_LABEL = " [Serial]"
_BY_ITSELF = "skipped - "


class Outcome(NamedTuple):
    """The outcome of a spec."""

    result: Result
    why: str = ""
    """Its message if it skipped itself; empty if it was not run."""


def read(reports: Iterable[Path]) -> dict[str, Outcome]:
    """Read the JUnit files of parallel runs; return the outcome by the spec's name."""
    outcomes: dict[str, Outcome] = {}
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("name", "")
            if name.startswith(_SPEC):
                name = name.removeprefix(_SPEC).removesuffix(_LABEL)
                outcome = _outcome(case)
                if name not in outcomes or outcome != Outcome("skipped"):
                    outcomes[name] = outcome
    return outcomes


def _outcome(case: ElementTree.Element) -> Outcome:
    skipped = case.find("skipped")
    if skipped is not None:
        message = skipped.get("message", "")
        return Outcome("skipped", message.removeprefix(_BY_ITSELF) if message.startswith(_BY_ITSELF) else "")
    bad = case.find("failure") is not None or case.find("error") is not None
    return Outcome("failed" if bad else "passed")


def complaints(
    outcomes: Mapping[str, Outcome], impossible: Collection[str], may_skip: Collection[str] | None
) -> Iterator[str]:
    """Yield a line for each unexpected outcome.

    ``impossible`` names specs that cannot pass, ``may_skip`` contains prefixes of allowed skip messages;
    None allows all.
    """
    for name, outcome in outcomes.items():
        if name in impossible:
            if outcome.result == "passed":
                yield f"{name} is in the list but passes"
        elif outcome.result == "failed":
            yield f"{name} failed"
        elif outcome.why and may_skip is not None and not outcome.why.startswith(tuple(may_skip)):
            yield f"{name} skipped itself: {outcome.why}"
    for name in impossible:
        if name not in outcomes:
            yield f"{name} is in the list but is no spec of the suite"
    if not any(outcome.result == "passed" for outcome in outcomes.values()):
        yield "no spec passed"


def closing(outcomes: Mapping[str, Outcome], impossible: Collection[str]) -> str:
    """Return the summary: the number of specs per outcome; impossible ones that failed count as such."""
    harmless = (None, Outcome("passed"), Outcome("skipped"))
    tried = [name for name in impossible if outcomes.get(name) not in harmless]
    counts = Counter(outcome.result for name, outcome in outcomes.items() if name not in tried)
    line = f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
    return f"{line}, {len(tried)} not possible" if tried else line
