"""A fuzzer for image layers: ``python tests/fuzz/fuzz_tar.py --runs 100000 --seed 7``.

Every layer is a mutated archive, plain or compressed. Unpacking must end, with a one-line
NoderuntimeError or without an error, leave no descriptor open, and change nothing outside
its directory. A failure reports its number; ``--first NUMBER --runs 1`` with the same seed repeats it.

A coverage-guided fuzzer can call :meth:`Cage.unpack` itself.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import random
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from noderuntime.core.errors import NoderuntimeError
from noderuntime.node.layers import job
from noderuntime.node.layers.tar.limits import Limits
from noderuntime.node.layers.zstandard import zstd

LIMITS = Limits(size=1 << 20, entries=300, devices=5, depth=40, directory_bytes=1 << 16)
RECORD = 512
SECRET = b"secret of the node"

FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "kind": (156, 1),
    "target": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
    "pieces": (386, 96),
    "more": (482, 1),
    "realsize": (483, 12),
}
NUMBERS = [b"", b"0", b"1", b"777", b"7777", b"1000", b"77777777777", b"9", b"-1", b"\x80" + bytes(6) + b"\2"]
NUMBERS += [b"\xff" * 8, b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80" + bytes(10) + b"\5", b" 12 ", b"0x10"]
WORDS = [
    b"",
    b".",
    b"..",
    b"/",
    b"a",
    b"a/b",
    b"a/b/c",
    b"l",
    b"l/x",
    b"l/l",
    b"h",
    b"./a/",
    b"//",
    b"\xff\n",
]
WORDS += [
    b"../outside/secret",
    b"../../..",
    b"l/../../outside",
    b"/etc",
    b"/proc/self/cwd/outside",
    b"n" * 99,
]
WORDS += [b".wh.a", b"a/.wh.b", b".wh..wh..opq", b"a/.wh..wh..opq", b".wh.", b".wh...", b".wh..wh.plnk/x"]
KEYS = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.a", b"SCHILY.xattr."]
KEYS += [b"SCHILY.xattr.security.capability", b"SCHILY.xattr.trusted.overlay.redirect", b"GNU.sparse.map"]
KEYS += [b"GNU.sparse.size", b"GNU.sparse.major", b"GNU.sparse.realsize", b"GNU.sparse.name", b"comment"]
VALUES = [b"", b"0", b"1", b"3", b"-1", b"1.5", b"0,1", b"0,1,5,2", b"99999999999999999999", b"1,2,3", b"\0"]


class Cage:
    """A directory to unpack into, and files around it that must not change."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._outside = place / "outside"
        self._outside.mkdir()
        (self._outside / "secret").write_bytes(SECRET)
        (self._outside / "link").symlink_to("secret")
        self._before = self._state()
        self._descriptors = os.listdir("/proc/self/fd")

    def unpack(self, layer: bytes) -> NoderuntimeError | None:
        """Unpack a layer, check the invariants, and clean up."""
        target = self.place / "layer"
        target.mkdir()
        fd = os.memfd_create("layer")
        os.write(fd, layer)
        refusal = None
        try:
            job.unpack(fd, lambda _: (len(layer), True), str(target), LIMITS)
        except NoderuntimeError as error:
            refusal = error
        finally:
            os.close(fd)
        shutil.rmtree(target)
        assert refusal is None or (str(refusal).isprintable() and len(str(refusal)) < 1000), refusal
        assert self._state() == self._before, "a file outside of the directory has changed"
        assert os.listdir("/proc/self/fd") == self._descriptors, "a descriptor was left open"
        return refusal

    def _state(self) -> list[tuple[object, ...]]:
        paths = [self._outside, self._outside / "secret", self._outside / "link"]
        looks = [
            (found.st_mode, found.st_uid, found.st_nlink, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            for found in map(os.lstat, paths)
        ]
        return [*looks, tuple(sorted(os.listdir(self.place))), tuple(sorted(os.listdir(self._outside)))]


def seeds() -> list[bytes]:
    """Return valid archives in the three formats, each with all kinds of entries."""
    return [_seed(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]


def _seed(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, target in (
            ("a", tarfile.DIRTYPE, ""),
            ("a/b", tarfile.REGTYPE, ""),
            ("l", tarfile.SYMTYPE, "a"),
            ("h", tarfile.LNKTYPE, "a/b"),
            ("l/x", tarfile.REGTYPE, ""),
            ("p", tarfile.FIFOTYPE, ""),
            ("d", tarfile.CHRTYPE, ""),
            ("long/" * 20 + "n", tarfile.REGTYPE, ""),
            ("a/.wh.gone", tarfile.REGTYPE, ""),
            ("q/.wh..wh..opq", tarfile.REGTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime, info.uid = kind, target, 1e9, os.getuid()
            info.size = 700 if kind == tarfile.REGTYPE else 0
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"mtime": "12.5", "SCHILY.xattr.user.a": "1", "comment": "c" * 600}
            archive.addfile(info, io.BytesIO(b"c" * info.size))
    return buffer.getvalue()


class Mutation:
    """One mutated layer, determined by the seed and its number."""

    def __init__(self, seed: int, number: int, cage: Path) -> None:
        self._random = random.Random(f"{seed}/{number}")
        self._words = [*WORDS, os.fsencode(cage / "outside"), os.fsencode(cage / "outside/secret")]

    def layer(self, honest: list[bytes]) -> bytes:
        """Return the mutated layer."""
        archive = bytearray(self._random.choice(honest).rstrip(b"\0") + bytes(1024))
        archive += bytes(-len(archive) % RECORD)
        for _ in range(self._random.choice([1, 1, 2, 3, 5])):
            self._random.choice(
                [self._field, self._field, self._field, self._blocks, self._noise, self._extend]
            )(archive)
        if self._random.random() < 0.1:
            del archive[self._random.randrange(len(archive)) :]
        return self._packed(bytes(archive))

    def _field(self, archive: bytearray) -> None:
        """Change one field of a header, and correct its checksum."""
        headers = [
            at
            for at in range(0, len(archive) - RECORD + 1, RECORD)
            if archive[at + 257 : at + 262] == b"ustar"
        ]
        if not headers:
            return
        at = self._random.choice(headers)
        name = self._random.choice(list(FIELDS))
        offset, width = FIELDS[name]
        if name in ("name", "target", "prefix"):
            value = self._random.choice(self._words)
        elif name == "kind":
            value = bytes([self._random.choice(b"01234567\0gxLKSDV")])
        else:
            value = self._random.choice(NUMBERS)
        archive[at + offset : at + offset + width] = value[:width].ljust(width, b"\0")
        _sign(archive, at)

    def _blocks(self, archive: bytearray) -> None:
        """Copy, remove or move some blocks."""
        count = len(archive) // RECORD
        start = self._random.randrange(count + 1) * RECORD
        some = archive[start : start + self._random.randint(1, 5) * RECORD]
        if self._random.random() < 0.6:
            del archive[start : start + len(some)]
        if self._random.random() < 0.7:
            to = self._random.randrange(count + 1) * RECORD
            archive[to:to] = some

    def _noise(self, archive: bytearray) -> None:
        for _ in range(self._random.randint(1, 20)):
            if archive:
                archive[self._random.randrange(len(archive))] = self._random.randrange(256)

    def _extend(self, archive: bytearray) -> None:
        """Insert an extended header or a long name before a block."""
        kind = self._random.choice(b"xxxgLK")
        if kind in b"xg":
            content = b"".join(
                _record(self._random.choice(KEYS), self._random.choice(VALUES + self._words))
                for _ in range(self._random.randint(1, 4))
            )
        else:
            content = self._random.choice(self._words) * self._random.randint(1, 3) + b"\0"
        header = bytearray(RECORD)
        header[124:136] = b"%011o\0" % len(content)
        header[156] = kind
        header[257:265] = b"ustar\x0000"
        _sign(header, 0)
        to = self._random.randrange(len(archive) // RECORD + 1) * RECORD
        archive[to:to] = header + content + bytes(-len(content) % RECORD)

    def _packed(self, archive: bytes) -> bytes:
        way = self._random.random()
        if way < 0.7:
            return archive
        layer = bytearray(gzip.compress(archive, 1, mtime=0) if way < 0.85 else zstd.compress(archive, 1))
        if self._random.random() < 0.5:
            self._noise(layer)
        return bytes(layer)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _sign(archive: bytearray, at: int) -> None:
    archive[at + 148 : at + 156] = b" " * 8
    archive[at + 148 : at + 156] = b"%06o\0 " % sum(archive[at : at + RECORD])


def main() -> int:
    """Fuzz the unpacking of layers and print the number of refused ones."""
    parser = argparse.ArgumentParser(description="Fuzz the unpacking of layers with mutated archives.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first layer")
    parser.add_argument("--runs", type=int, default=10_000, help="how many layers")
    options = parser.parse_args()
    os.umask(0)
    honest = seeds()
    refused = 0
    with tempfile.TemporaryDirectory(prefix="noderuntime-fuzz-") as place:
        cage = Cage(Path(place))
        for number in range(options.first, options.first + options.runs):
            try:
                refusal = cage.unpack(Mutation(options.seed, number, cage.place).layer(honest))
            except BaseException:
                print(f"layer {number} of seed {options.seed}", file=sys.stderr)
                raise
            refused += refusal is not None
    print(f"{options.runs} layers, {refused} refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
