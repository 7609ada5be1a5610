from __future__ import annotations

import pytest

from noderuntime.node.host.messages import one_line


@pytest.mark.parametrize(
    ("output", "line"),
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
def test_one_line_returns_the_last_error(output: str, line: str) -> None:
    assert one_line(output) == line


def test_one_line_truncates_a_long_message() -> None:
    assert len(one_line("x" * 100_000)) < 1100
