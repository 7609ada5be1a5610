"""The verdict on a run of the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from critest.verdict import Outcome, closing, complaints, read

GOOD, BAD, LEFT = Outcome("passed"), Outcome("failed"), Outcome("skipped")


def report(path: Path, *cases: tuple[str, str]) -> Path:
    inner = "".join(f'<testcase name="[It] [k8s.io] {name}">{body}</testcase>' for name, body in cases)
    path.write_text(
        f'<testsuites><testsuite><testcase name="[SynchronizedAfterSuite]"/>{inner}</testsuite></testsuites>'
    )
    return path


def test_read_merges_the_reports_of_several_runs(tmp_path: Path) -> None:
    left = '<skipped message="skipped"/>'
    itself = '<skipped message="skipped - AppArmor is disabled"/>'
    first = report(tmp_path / "1", ("a [Serial]", ""), ("b", left), ("c", itself), ("d", left))
    second = report(tmp_path / "2", ("a", left), ("b", '<failure message="no"/>'), ("c", left), ("d", left))
    assert read([first, second]) == {
        "a": GOOD,
        "b": BAD,
        "c": Outcome("skipped", "AppArmor is disabled"),
        "d": LEFT,
    }


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (BAD, ["spec failed"]),
        (Outcome("skipped", "not yet supported"), ["spec skipped itself: not yet supported"]),
        (Outcome("skipped", "no LSM"), []),
        (LEFT, []),
    ],
)
def test_complaints_name_failed_and_wrongly_skipped_specs(outcome: Outcome, words: list[str]) -> None:
    assert list(complaints({"other": GOOD, "spec": outcome}, (), ("no LSM",))) == words


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (BAD, []),
        (Outcome("skipped", "not yet supported"), []),
        (LEFT, []),
        (GOOD, ["spec is in the list but passes"]),
    ],
)
def test_complaints_name_a_listed_spec_that_passes(outcome: Outcome, words: list[str]) -> None:
    assert list(complaints({"other": GOOD, "spec": outcome}, ("spec",), ())) == words


def test_complaints_name_unknown_specs_and_an_empty_run() -> None:
    assert list(complaints({}, ("gone",), ())) == [
        "gone is in the list but is no spec of the suite",
        "no spec passed",
    ]


def test_closing_counts_listed_specs_separately() -> None:
    outcomes = {"a": GOOD, "b": BAD, "c": LEFT, "d": BAD, "e": Outcome("skipped", "x")}
    assert closing(outcomes, ()) == "1 passed, 2 failed, 2 skipped"
    assert closing(outcomes, ("a", "d", "e", "gone")) == "1 passed, 1 failed, 1 skipped, 2 not possible"
