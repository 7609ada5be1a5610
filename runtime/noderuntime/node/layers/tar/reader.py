"""Reading tar archives: ustar and what went before, PAX, GNU.

Python's ``tarfile`` takes 100 µs for each entry and believes too much; this reads what image
builders write, refuses what is damaged or absurd with InvalidArgument, and leaves
alone what other runtimes ignore (global extended headers).
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
from noderuntime.node.layers.tar.entry import NO_XATTRS, Entry, Sparse, shown
from noderuntime.node.layers.tar.limits import Limits
from noderuntime.node.layers.tar.numbers import bounded_time, decimal, nanoseconds, number
from noderuntime.node.layers.tar.pax import LONGEST, Extended

_RECORD = 512
_ZERO = bytes(_RECORD)
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_often = lru_cache(1024)(number)  # modes and owners: few different ones
_ADLER = 65521
_NO_ARCHIVE = "the layer is no tar archive, or a damaged one: a header's check sum is wrong"
_NO_ID = 0xFFFFFFFF  # to the kernel it means: leave it as it is

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
    """Iterates over the entries; whoever takes one may read its contents from the stream."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self.headers = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield entry by entry up to the archive's end, then see to it that nothing is behind it."""
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
            raise InvalidArgument("the layer's archive ends too early: behind an extended header")

    def _header(self) -> bytes | None:
        header = self._stream.take(_RECORD)
        if not header:
            return None
        if header == _ZERO:
            if not self._stream.rest_is_zero():
                raise InvalidArgument("the layer has something behind the end of its archive")
            return None
        if len(header) < _RECORD:
            raise InvalidArgument("the layer's archive ends too early")
        self.headers += 1
        if self.headers > self._limits.entries:
            raise ResourceExhausted(f"the layer has more than {self._limits.entries} entries")
        _check_sum(header)
        return header

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST:
            raise InvalidArgument(f"the archive has an extended header of {size} bytes")
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
        """Put an entry together; also returns where its contents end, padding included."""
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
        """Find out where a file's bytes belong, and where they end."""
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
        if holes.size > self._limits.size:
            raise ResourceExhausted(f"{shown(found.name)} has {holes.size} bytes: more than a layer may have")
        return found._replace(size=stored, sparse=holes), end

    def _check(self, found: Entry) -> None:
        if found.size < 0:
            raise InvalidArgument(f"{shown(found.name)} has an absurd size: {found.size} bytes")
        if found.size > self._limits.size:
            raise ResourceExhausted(f"{shown(found.name)} has {found.size} bytes: more than a layer may have")
        if not (0 <= found.uid < _NO_ID and 0 <= found.gid < _NO_ID):
            raise InvalidArgument(f"{shown(found.name)} has an absurd owner: {found.uid}:{found.gid}")


def _plain(fields: tuple[bytes, ...], name: bytes | None, target: bytes | None) -> Entry:
    """Read a header; a long name or target from an entry before it wins."""
    raw_name, mode, uid, gid, size, mtime, _, kind, raw_target, magic, _, _, prefix = fields
    if name is None:
        name = raw_name.partition(b"\0")[0]
        if prefix[0] and magic[:6] == b"ustar\0":
            name = prefix.partition(b"\0")[0] + b"/" + name
    return Entry(
        kind,
        name,
        raw_target.partition(b"\0")[0] if target is None else target,
        _often(mode) & 0o7777,
        _often(uid),
        _often(gid),
        bounded_time(number(mtime) * 10**9),
        number(size),
        (0, 0),
        NO_XATTRS,
        None,
    )


def _same_kind(found: Entry) -> bytes:
    """Return what another letter stands for."""
    if found.kind == _OLD:  # before ustar there was no type for directories
        return kinds.DIRECTORY if found.name.endswith(b"/") else kinds.FILE
    if found.kind in (_CONTIGUOUS, _SPARSE):
        return kinds.FILE
    raise InvalidArgument(f"{shown(found.name)} is of an unknown type: {found.kind!r}")


def _extend(found: Entry, pax: Extended) -> Entry:
    """Let the records of an extended header win over the header."""
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


def _check_sum(header: bytes) -> None:
    """Compare the header with its check sum, which counts its own field as spaces.

    adler32's lower half is 1 + the sum of all bytes modulo 65521: ten times faster than a sum in Python.
    """
    try:
        told = number(header[148:156])
    except InvalidArgument:
        raise InvalidArgument(_NO_ARCHIVE) from None
    counted = (adler32(header) & 0xFFFF) - 1 - sum(header[148:156]) + 8 * 0x20
    if (told - counted) % _ADLER == 0:
        return
    signed = counted - 256 * sum(byte >> 7 for byte in header[:148] + header[156:])  # as old Suns counted
    if (told - signed) % _ADLER:
        raise InvalidArgument(_NO_ARCHIVE)


def _padded(size: int) -> int:
    return -(-size // _RECORD) * _RECORD
