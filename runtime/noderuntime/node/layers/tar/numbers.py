"""Numbers as tar headers write them."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument

_BASE256 = 0x80
_EPOCH_RANGE = 1 << 63  # nanoseconds: the years 1677 to 2262
_LONGEST = 20  # decimal digits of 64 bits


def number(field: bytes) -> int:
    """Read octal digits, or GNU's base-256 (two's complement, marked by the first bit); InvalidArgument."""
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            raise InvalidArgument(f"the archive has a number that is not octal: {digits!r}") from None
    if field[0] & _BASE256:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") - (1 << bits)
        return value if value < 1 << (bits - 1) else value - (1 << bits)
    if digits:
        raise InvalidArgument(f"the archive has a number that is not octal: {digits!r}")
    return 0


def decimal(field: bytes) -> int:
    """Read the digits of an extended header; anything else, a sign too, is InvalidArgument."""
    if not field.isdigit() or len(field) > _LONGEST:
        raise InvalidArgument(f"the archive has an absurd number: {field[:40]!r}")
    return int(field)


def nanoseconds(field: bytes) -> int:
    """Read seconds with a fraction of any length; what no clock shows becomes 0, as in other runtimes."""
    whole, _, fraction = field.removeprefix(b"-").partition(b".")
    if not (whole + fraction).isdigit() or len(field) > 3 * _LONGEST:
        raise InvalidArgument(f"the archive has an absurd time: {field[:40]!r}")
    value = int(whole or b"0") * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return bounded_time(-value if field.startswith(b"-") else value)


def bounded_time(value: int) -> int:
    """Return the nanoseconds since 1970, or 0 if they are out of what filesystems can store."""
    return value if -_EPOCH_RANGE < value < _EPOCH_RANGE else 0
