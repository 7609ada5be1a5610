"""Formatting for terminals, and ID prefixes."""

from __future__ import annotations

import pytest

from noderuntime.cli.find import find
from noderuntime.cli.text import age, printable, short_id, size, table, timestamp
from noderuntime.core.errors import FailedPrecondition, NotFound

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grün", "grün"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc", "\\u202eabc"),
        ("\udc80", "\\udc80"),
    ],
)
def test_printable_escapes_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_table_aligns_columns_to_the_widest_field() -> None:
    assert table(("A", "B"), [("long", "x"), ("", "y")]) == "A      B\nlong   x\n-      y\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d"), (-5, "0s")],
)
def test_age_has_one_unit(seconds: int, shown: str) -> None:
    assert age(1000 * SECOND, (1000 + seconds) * SECOND) == shown


def test_age_is_empty_for_time_zero() -> None:
    assert age(0, SECOND) == ""


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (20 << 30, "20 GiB"), (1 << 60, "1048576 TiB")],
)
def test_size_has_about_three_digits(number: int, shown: str) -> None:
    assert size(number) == shown


def test_timestamp_is_utc_and_short_id_drops_the_algorithm() -> None:
    assert timestamp(1_700_000_000 * SECOND) == "2023-11-14T22:13:20Z"
    assert short_id("sha256:" + "ab" * 32) == "abababababa" + "ba"


def test_find_resolves_a_unique_prefix() -> None:
    known = ["abc1", "abd1", "x"]
    assert find("pod", "abc", known) == "abc1"
    assert find("pod", "x", [*known, "xy"]) == "x", "a full ID matches only itself"
    with pytest.raises(FailedPrecondition, match="abc1, abd1"):
        find("pod", "ab", known)
    with pytest.raises(NotFound, match="no pod q"):
        find("pod", "q", known)
