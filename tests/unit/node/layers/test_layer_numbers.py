"""Parsers of numbers in tar headers."""

import pytest
from layer_archives import base256

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.layers.tar.numbers import decimal, nanoseconds, number


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"644\0junk", 0o644),
        (b"77777777", 0o77777777),
        (bytes(8), 0),
        (b"        ", 0),
        (b"\x80" + bytes(7), 0),
    ],
)
def test_number_parses_octal(field, value):
    assert number(field) == value


@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 0xFFFFFFFE, (1 << 54) - 1, -1, -2, -(1 << 54)])
def test_number_parses_base_256(value, width):
    assert number(base256(value, width)) == value


@pytest.mark.parametrize(
    "field", [b"0000008\0", b"-000644\0", b"0x1ff\0\0\0", b"64 4\0\0\0\0", b"+1\0", b"1_0\0"]
)
def test_number_refuses_invalid_octal(field):
    with pytest.raises(InvalidArgument, match="invalid octal"):
        number(field)


@pytest.mark.parametrize("field", [b"", b"-1", b"+1", b" 1", b"1.0", b"0x1", b"1_0", b"9" * 21, b"\xd9\xa3"])
def test_decimal_refuses_anything_but_digits(field):
    with pytest.raises(InvalidArgument, match="invalid number"):
        decimal(field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0", 0),
        (b"1700000000", 1700000000 * 10**9),
        (b"1700000000.123456789", 1700000000123456789),
        (b"1700000000.1234567891234", 1700000000123456789),
        (b"1.5", 1500000000),
        (b".25", 250000000),
        (b"-1.5", -1500000000),
        (b"99999999999999999999", 0),
    ],
)
def test_nanoseconds_parses_decimal_seconds(field, value):
    assert nanoseconds(field) == value


@pytest.mark.parametrize("field", [b"", b".", b"-", b"--1", b"+1", b"1.-5", b"1e9", b"nan", b"1" * 61])
def test_nanoseconds_refuses_invalid_times(field):
    with pytest.raises(InvalidArgument, match="invalid time"):
        nanoseconds(field)
