"""Trees with every kind of file, and a comparison of two trees."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep, in the kernel's format."""


def looks(root: Path) -> dict[str, dict[str, Any]]:
    """Return the attributes of a directory and all entries below it that a container can observe."""
    start = os.fsencode(root)
    paths = [start]
    for place, directories, files in os.walk(start):
        paths += [os.path.join(place, name) for name in (*directories, *files)]
    firsts: dict[int, str] = {}
    found = {}
    for path in sorted(paths):
        name = os.fsdecode(os.path.relpath(path, start))
        found[name] = _look(path, name, firsts)
    return found


def _look(path: bytes, name: str, firsts: dict[int, str]) -> dict[str, Any]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    return {
        "mode": oct(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
        "size": status.st_size if kind == stat.S_IFREG else None,
        "device": status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else None,
        "content": _content(path, kind),
        "xattrs": {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        },
        "same as": None if kind == stat.S_IFDIR else firsts.setdefault(status.st_ino, name),
    }


def _content(path: bytes, kind: int) -> str | None:
    if kind == stat.S_IFLNK:
        return os.fsdecode(os.readlink(path))
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def differences(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the differing attributes by name; empty if there are none."""
    found: dict[str, Any] = {}
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            found[name] = "only here" if name in one else "only there"
            continue
        keys = [key for key in one[name] if one[name][key] != other[name][key]]
        if keys:
            found[name] = {key: (one[name][key], other[name][key]) for key in keys}
    return found


def make_everything(root: Path) -> None:
    """Create one file of each kind, with all attributes. Needs root."""
    for name in ("bin", "sticky", "empty", "deep/" + "/".join(["down" * 20] * 6)):
        (root / name).mkdir(parents=True)
    (root / "sticky").chmod(0o1777)
    files = {
        "bin/plain": (b"plain\n", 0o644, 0, 0),
        "bin/nothing": (b"", 0o600, 0, 0),
        "bin/setuid": (b"#!", 0o4755, 0, 12),
        "bin/setgid": (b"#!", 0o2755, 1234, 4321),
        "bin/capable": (b"#!", 0o755, 1000, 1000),
        "bin/unreadable": (b"x", 0o000, 99, 99),
        "large owner": (b"x", 0o644, 4_000_000_000, 4_294_967_294),
        "block": (os.urandom(512), 0o644, 0, 0),
        "odd": (os.urandom(100_001), 0o644, 0, 0),
        "new\nline": (b"x", 0o644, 0, 0),
        "ümläut": (b"x", 0o644, 0, 0),
        os.fsdecode(b"no \xff\xfe text"): (b"x", 0o644, 0, 0),
        "n" * 255: (b"x", 0o644, 0, 0),
        "deep/" + "/".join(["down" * 20] * 6) + "/here": (b"x", 0o644, 0, 0),
    }
    for name, (content, mode, uid, gid) in files.items():
        path = root / name
        path.write_bytes(content)
        os.chown(path, uid, gid)
        path.chmod(mode)
    os.setxattr(root / "bin/capable", "security.capability", CAPABILITY)
    for name in ("bin", "bin/plain"):
        os.setxattr(root / name, "user.note", b"binary \0\n=")
        os.setxattr(root / name, "user.empty", b"")
    _make_links_and_devices(root)
    _make_holes(root)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        time = 1_500_000_000_123_456_789 + number * 1_000_000_007
        os.utime(path, ns=(time, time), follow_symlinks=False)


def _make_links_and_devices(root: Path) -> None:
    (root / "link").symlink_to("bin/plain")
    (root / "dangling").symlink_to("/nowhere/" + "far/" * 60)
    os.link(root / "bin/plain", root / "bin/other name")
    os.link(root / "bin/capable", root / "capable too")
    os.link(root / "link", root / "link too", follow_symlinks=False)
    os.mkfifo(root / "pipe", 0o620)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.lchown(root / "link", 5, 6)
    os.chown(root / "disk", 0, 6)


def _make_holes(root: Path) -> None:
    for name, pieces, size in (
        ("holes", [(0, b"start"), (1 << 20, b"middle" * 1000), (5 << 20, b"end")], (5 << 20) + 3),
        ("many holes", [(number << 16, b"x" * 4096) for number in range(40)], 3 << 20),
        ("only a hole", [], 1 << 22),
    ):
        with open(root / name, "wb") as file:
            for offset, content in pieces:
                file.seek(offset)
                file.write(content)
            file.truncate(size)
