"""Parsers of the numbers in tar headers."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument

_BASE256 = 0x80
_EPOCH_RANGE = 1 << 63  # nanoseconds: years 1677 to 2262
_MAX_DIGITS = 20  # of a 64-bit number in decimal


def number(field: bytes) -> int:
    """Return a number in octal or GNU base-256 (two's complement, first bit set). InvalidArgument."""
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            raise InvalidArgument(f"the archive contains an invalid octal number: {digits!r}") from None
    if field[0] & _BASE256:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") - (1 << bits)
        return value if value < 1 << (bits - 1) else value - (1 << bits)
    if digits:
        raise InvalidArgument(f"the archive contains an invalid octal number: {digits!r}")
    return 0


def decimal(field: bytes) -> int:
    """Return an unsigned decimal number of an extended header. InvalidArgument if it is not one."""
    if not field.isdigit() or len(field) > _MAX_DIGITS:
        raise InvalidArgument(f"the archive contains an invalid number: {field[:40]!r}")
    return int(field)


def nanoseconds(field: bytes) -> int:
    """Return decimal seconds as nanoseconds; 0 if out of range, as in other runtimes. InvalidArgument."""
    whole, _, fraction = field.removeprefix(b"-").partition(b".")
    if not (whole + fraction).isdigit() or len(field) > 3 * _MAX_DIGITS:
        raise InvalidArgument(f"the archive contains an invalid time: {field[:40]!r}")
    value = int(whole or b"0") * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return bounded_time(-value if field.startswith(b"-") else value)


def bounded_time(value: int) -> int:
    """Return the nanoseconds since 1970, or 0 if filesystems cannot store the time."""
    return value if -_EPOCH_RANGE < value < _EPOCH_RANGE else 0
