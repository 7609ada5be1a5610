"""Extended headers of POSIX.1-2001 archives: records of the form ``LENGTH KEY=VALUE\\n``."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument

LONGEST = 1 << 20
"""Bytes of one extended header, a long name or a map of holes; Go's reader has the same bound."""

XATTR = b"SCHILY.xattr."
_PIECES = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_NAMES = (b"path", b"linkpath", b"GNU.sparse.name")


class Extended:
    """What an extended header says about the entry that follows it."""

    __slots__ = ("pieces", "records", "xattrs")

    def __init__(self, data: bytes) -> None:
        """Read the records; later ones win, an empty value takes one back. InvalidArgument."""
        self.records: dict[bytes, bytes] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        """Offsets and lengths in turn: the only keys that occur more than once."""
        at = 0
        while at < len(data):
            at = self._record(data, at)

    def _record(self, data: bytes, at: int) -> int:
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space + 1 < end <= len(data) or data[end - 1] != 0x0A or not equals or not key:
            raise InvalidArgument("the archive has a damaged extended header")
        if key in _NAMES and b"\0" in value:
            raise InvalidArgument("the archive has a name with a zero byte in it")
        self._keep(key, value)
        return end

    def _keep(self, key: bytes, value: bytes) -> None:
        if key.startswith(XATTR):
            name = key[len(XATTR) :]
            if not name or b"\0" in name:
                raise InvalidArgument("the archive has an extended attribute without a proper name")
            self.xattrs[name] = value
        elif key in _PIECES:
            self.pieces.append(value)
        elif value:
            self.records[key] = value
        else:
            self.records.pop(key, None)
