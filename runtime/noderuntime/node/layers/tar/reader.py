"""A reader of tar archives in the formats v7, ustar, pax and GNU.

Python's ``tarfile`` takes 100 µs per entry and validates too little. This reader supports what image
builders write, refuses damaged and invalid input with InvalidArgument, and ignores what other runtimes
ignore (global extended headers).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from zlib import adler32

from noderuntime.core.errors import InvalidArgument, ResourceExhausted
from noderuntime.node.layers.stream import Stream
from noderuntime.node.layers.tar import entry as kinds
from noderuntime.node.layers.tar import sparse
from noderuntime.node.layers.tar.entry import NO_XATTRS, Entry, Sparse, quoted
from noderuntime.node.layers.tar.limits import Limits
from noderuntime.node.layers.tar.numbers import bounded_time, decimal, nanoseconds, number
from noderuntime.node.layers.tar.pax import MAX_BYTES, Extended

_RECORD = 512
_ZERO = bytes(_RECORD)
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_cached_number = lru_cache(1024)(number)  # modes and owners have few different values
_ADLER = 65521
_NOT_AN_ARCHIVE = "the layer is not a tar archive or is damaged: the checksum of a header is wrong"
_NO_ID = 0xFFFFFFFF  # the kernel's value for "unchanged"

_KIND_AT = 156
_SPARSE = b"S"
_KINDS = (
    kinds.FILE,
    kinds.LINK,
    kinds.SYMLINK,
    kinds.CHARACTER,
    kinds.BLOCK,
    kinds.DIRECTORY,
    kinds.FIFO,
)
_CONTIGUOUS = b"7"
_OLD = b"\0"
_EXTENSIONS = (b"x", b"g", b"L", b"K")


class Archive:
    """An iterable of the entries. The caller can read the contents of a file from the stream."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self.headers = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries. InvalidArgument if data follows the end of the archive."""
        stream = self._stream
        pax = name = target = None
        while (header := self._header()) is not None:
            fields = _FIELDS.unpack(header)
            kind = fields[7]
            if kind not in _EXTENSIONS:
                found, end = self._entry(header, fields, pax, name, target)
                pax = name = target = None
                yield found
                stream.skip_to(end)
                continue
            data = self._extension(number(fields[4]))
            if kind == b"x":
                pax = Extended(data)
            elif kind == b"L":
                name = data.partition(b"\0")[0]
            elif kind == b"K":
                target = data.partition(b"\0")[0]
        if pax or name or target:
            raise InvalidArgument("the layer's archive is truncated after an extended header")

    def _header(self) -> bytes | None:
        header = self._stream.take(_RECORD)
        if not header:
            return None
        if header == _ZERO:
            if not self._stream.rest_is_zero():
                raise InvalidArgument("the layer has data after the end of its archive")
            return None
        if len(header) < _RECORD:
            raise InvalidArgument("the layer's archive is truncated")
        self.headers += 1
        if self.headers > self._limits.entries:
            raise ResourceExhausted(f"the layer has more than the limit of {self._limits.entries} entries")
        _verify_checksum(header)
        return header

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise InvalidArgument(
                f"the archive contains an extended header of {size} bytes (maximum: {MAX_BYTES})"
            )
        end = self._stream.position + _padded(size)
        data = self._stream.take(size)
        self._stream.skip_to(end)
        return data

    def _entry(
        self,
        header: bytes,
        fields: tuple[bytes, ...],
        pax: Extended | None,
        name: bytes | None,
        target: bytes | None,
    ) -> tuple[Entry, int]:
        """Return the entry and the position at which its contents end, including padding."""
        found = _plain(fields, name, target)
        if pax is not None:
            found = _extend(found, pax)
        if found.kind not in _KINDS:
            found = found._replace(kind=_same_kind(found))
        if found.kind in (kinds.CHARACTER, kinds.BLOCK):
            found = found._replace(device=(number(fields[10]), number(fields[11])))
        self._check(found)
        if found.kind != kinds.FILE:
            return found, self._stream.position
        return self._contents(found, header, pax)

    def _contents(self, found: Entry, header: bytes, pax: Extended | None) -> tuple[Entry, int]:
        """Return the entry of a file with its sparse map, and the position at which its contents end."""
        holes: Sparse | None = None
        stored = found.size
        old = header[_KIND_AT] == ord(_SPARSE)
        if old:
            holes = sparse.old_gnu(header, self._stream, stored)
        end = self._stream.position + _padded(stored)
        if not old and pax is not None and (mapped := sparse.extended(pax, self._stream, stored)):
            holes, stored = mapped
        if holes is None:
            return found, end
        self._check_size(found.name, holes.size)
        return found._replace(size=stored, sparse=holes), end

    def _check(self, found: Entry) -> None:
        if found.size < 0:
            raise InvalidArgument(f"{quoted(found.name)} has an invalid size of {found.size} bytes")
        self._check_size(found.name, found.size)
        if not (0 <= found.uid < _NO_ID and 0 <= found.gid < _NO_ID):
            raise InvalidArgument(f"{quoted(found.name)} has an invalid owner: {found.uid}:{found.gid}")

    def _check_size(self, name: bytes, size: int) -> None:
        limit = self._limits.size
        if size > limit:
            raise ResourceExhausted(
                f"{quoted(name)} has {size} bytes, more than the limit of {limit} (images.max_image_size)"
            )


def _plain(fields: tuple[bytes, ...], name: bytes | None, target: bytes | None) -> Entry:
    """Return the entry of a header. A preceding long name or target takes precedence."""
    raw_name, mode, uid, gid, size, mtime, _, kind, raw_target, magic, _, _, prefix = fields
    if name is None:
        name = raw_name.partition(b"\0")[0]
        if prefix[0] and magic[:6] == b"ustar\0":
            name = prefix.partition(b"\0")[0] + b"/" + name
    return Entry(
        kind,
        name,
        raw_target.partition(b"\0")[0] if target is None else target,
        _cached_number(mode) & 0o7777,
        _cached_number(uid),
        _cached_number(gid),
        bounded_time(number(mtime) * 10**9),
        number(size),
        (0, 0),
        NO_XATTRS,
        None,
    )


def _same_kind(found: Entry) -> bytes:
    """Return the ustar type of an older type letter. InvalidArgument for an unknown one."""
    if found.kind == _OLD:  # v7 archives have no type for directories
        return kinds.DIRECTORY if found.name.endswith(b"/") else kinds.FILE
    if found.kind in (_CONTIGUOUS, _SPARSE):
        return kinds.FILE
    raise InvalidArgument(f"{quoted(found.name)} has the unknown type {found.kind!r}")


def _extend(found: Entry, pax: Extended) -> Entry:
    """Return the entry with the records of an extended header, which take precedence."""
    get = pax.records.get
    name = get(b"GNU.sparse.name") or get(b"path") or found.name
    size, uid, gid, mtime = get(b"size"), get(b"uid"), get(b"gid"), get(b"mtime")
    return found._replace(
        name=name,
        target=get(b"linkpath") or found.target,
        size=found.size if size is None else decimal(size),
        uid=found.uid if uid is None else decimal(uid),
        gid=found.gid if gid is None else decimal(gid),
        mtime=found.mtime if mtime is None else nanoseconds(mtime),
        xattrs=pax.xattrs or NO_XATTRS,
    )


def _verify_checksum(header: bytes) -> None:
    """Verify the header's checksum, for which the checksum field counts as spaces.

    The lower half of adler32 is 1 + the sum of all bytes modulo 65521, ten times faster than a sum in Python.
    """
    try:
        stored = number(header[148:156])
    except InvalidArgument:
        raise InvalidArgument(_NOT_AN_ARCHIVE) from None
    counted = (adler32(header) & 0xFFFF) - 1 - sum(header[148:156]) + 8 * 0x20
    if (stored - counted) % _ADLER == 0:
        return
    signed = counted - 256 * sum(
        byte >> 7 for byte in header[:148] + header[156:]
    )  # old SunOS added signed bytes
    if (stored - signed) % _ADLER:
        raise InvalidArgument(_NOT_AN_ARCHIVE)


def _padded(size: int) -> int:
    return -(-size // _RECORD) * _RECORD
