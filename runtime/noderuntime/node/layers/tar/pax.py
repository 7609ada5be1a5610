"""Parser of extended headers (POSIX.1-2001 pax): records of the form ``LENGTH KEY=VALUE\\n``."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument

MAX_BYTES = 1 << 20
"""Maximum size of an extended header, a long name or a sparse map, as in Go's archive/tar."""

XATTR = b"SCHILY.xattr."
_PIECES = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_NAMES = (b"path", b"linkpath", b"GNU.sparse.name")


class Extended:
    """The extended header of the entry that follows it."""

    __slots__ = ("pieces", "records", "xattrs")

    def __init__(self, data: bytes) -> None:
        """Parse the records. Later ones take precedence, an empty value removes one. InvalidArgument."""
        self.records: dict[bytes, bytes] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        """Offsets and lengths alternately; their keys are the only ones that can be repeated."""
        at = 0
        while at < len(data):
            at = self._record(data, at)

    def _record(self, data: bytes, at: int) -> int:
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space + 1 < end <= len(data) or data[end - 1] != 0x0A or not equals or not key:
            raise InvalidArgument("the archive contains a damaged extended header")
        if key in _NAMES and b"\0" in value:
            raise InvalidArgument("the archive contains a name with a NUL byte")
        self._keep(key, value)
        return end

    def _keep(self, key: bytes, value: bytes) -> None:
        if key.startswith(XATTR):
            name = key[len(XATTR) :]
            if not name or b"\0" in name:
                raise InvalidArgument("the archive contains an extended attribute with an invalid name")
            self.xattrs[name] = value
        elif key in _PIECES:
            self.pieces.append(value)
        elif value:
            self.records[key] = value
        else:
            self.records.pop(key, None)
