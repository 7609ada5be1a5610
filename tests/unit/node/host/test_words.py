from __future__ import annotations

import pytest

from noderuntime.node.host.words import one_line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("", ""),
        ("it broke\n", "it broke"),
        ("first\nsecond\n\n", "second"),
        ('time="2026" level=error msg="exec: \\"x\\": not found"\n', 'exec: "x": not found'),
        ('time="2026" level=error msg="the cause"\ntime="2026" level=warning msg="noise"\n', "the cause"),
        ('time="2026" level=warning msg="only noise"\n', "only noise"),
        ("a\x1b[31mb\tc\x00d", "a [31mb c d"),
    ],
)
def test_the_last_complaint_as_one_line(said: str, line: str) -> None:
    assert one_line(said) == line


def test_a_long_complaint_is_cut() -> None:
    assert len(one_line("x" * 100_000)) < 1100
