"""Unpacked layers: results, hard links, devices, names, replaced entries, errors."""

import errno
import gzip
import os
import stat
from hashlib import sha256

import pytest
from layer_archives import (
    BLOCK,
    CHARACTER,
    END,
    FIFO,
    FILE,
    directory,
    entry,
    link,
    pax,
    symlink,
    tree,
    unpack,
    unpack_entries,
    zipped,
)

from noderuntime.core.errors import HostError, InvalidArgument, ResourceExhausted
from noderuntime.node.layers import attributes
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep in the kernel's format."""


OTHERS = {"uid": 1234, "gid": 4321}


def digest(data):
    return f"sha256:{sha256(data).hexdigest()}"


def test_unpack_returns_digests_and_counts(target):
    archive = directory("a") + pax((b"mtime", b"1.5")) + entry("a/f", content=b"x") + entry("b/c/d") + END
    assert unpack(archive, target)._asdict() == {
        "diff_id": digest(archive),
        "digest": digest(archive),
        "size": len(archive),
        "entries": 4,
        "implied": ("b", "b/c"),
        "opaque": False,
    }


def test_digests_cover_the_whole_stream(target):
    archive = entry("a") + bytes(20480)
    blob = gzip.compress(archive) + gzip.compress(b"")
    found = unpack(blob, target)
    assert (found.digest, found.diff_id, found.size) == (digest(blob), digest(archive), len(archive))


def test_empty_layer_is_accepted(target):
    for number, blob in enumerate((b"", END, zipped())):
        found = unpack(blob, target.with_name(f"layer{number}"))
        assert (found.entries, found.implied) == (0, ())
        assert tree(target.with_name(f"layer{number}")) == {}


def test_hard_links_share_one_inode(target):
    unpack_entries(
        target,
        directory("a"),
        entry("a/f", content=b"x", mode=0o640, mtime=7),
        link("b", b"a/f"),
        link("a/c", b"./a/f"),
        link("d/e", b"/b"),
        entry("f", mode=0o600),
    )
    inodes = {(target / name).stat().st_ino for name in ("a/f", "b", "a/c", "d/e")}
    assert len(inodes) == 1
    found = (target / "b").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime, found.st_nlink) == (0o640, 7, 4)


def test_hard_link_to_a_symlink_shares_its_inode(target):
    unpack_entries(target, symlink("l", b"nowhere"), link("m", b"l"))
    assert tree(target) == {"l": "-> nowhere", "m": "-> nowhere"}
    assert os.lstat(target / "l").st_ino == os.lstat(target / "m").st_ino


@pytest.mark.usefixtures("root")
def test_devices_are_created(target):
    unpack_entries(
        target,
        entry("dev/null", CHARACTER, mode=0o666, major=1, minor=3, **OTHERS),
        entry("dev/sda", BLOCK, mode=0o4660, major=8, minor=0x12345),
    )
    null, disk = (target / "dev/null").stat(), (target / "dev/sda").stat()
    assert stat.S_ISCHR(null.st_mode)
    assert (os.major(null.st_rdev), os.minor(null.st_rdev), null.st_uid) == (1, 3, 1234)
    assert stat.S_ISBLK(disk.st_mode)
    assert (os.major(disk.st_rdev), os.minor(disk.st_rdev)) == (8, 0x12345)
    assert (stat.S_IMODE(null.st_mode), stat.S_IMODE(disk.st_mode)) == (0o666, 0o4660)


def test_names_can_contain_any_bytes(target):
    names = [b"a b", b"new\nline", b"\xff\xfe", "ü".encode(), b"-rf", b"...", b"a\\b", b"n" * 255]
    unpack_entries(
        target, *(entry(b"./" + name[:98]) for name in names[:-1]), pax((b"path", names[-1])) + entry("x")
    )
    assert sorted(os.listdir(os.fsencode(target))) == sorted(names)


def test_repeated_slashes_and_dots_are_ignored(target):
    unpack_entries(target, entry("/etc//./passwd"), directory("./var/"), entry(".//var/./log"), entry("x/"))
    assert tree(target) == {
        "etc": "dir",
        "etc/passwd": "''",
        "var": "dir",
        "var/log": "''",
        "x": "''",
    }


def test_deep_path_is_created(target):
    unpack_entries(target, pax((b"path", b"dir/" * 256 + b"file")) + entry("x", content=b"deep"))
    assert target.joinpath(*["dir"] * 256, "file").read_text() == "deep"


def test_deep_path_can_be_replaced(target):
    unpack_entries(
        target, pax((b"path", b"dir/" * 256 + b"file")) + entry("x"), entry("dir", content=b"flat")
    )
    assert tree(target) == {"dir": "'flat'"}


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (entry("n", content=b"1"), entry("n", content=b"2"), "'2'"),
        (entry("n"), symlink("n", b"t"), "-> t"),
        (entry("n"), directory("n"), "dir"),
        (entry("n"), entry("n", FIFO), "fifo"),
        (symlink("n", b"t"), entry("n", content=b"2"), "'2'"),
        (symlink("n", b"t"), symlink("n", b"u"), "-> u"),
        (symlink("n", b"."), directory("n"), "dir"),
        (directory("n"), entry("n", content=b"2"), "'2'"),
        (directory("n"), symlink("n", b"t"), "-> t"),
        (directory("n"), entry("n", FIFO), "fifo"),
        (directory("n") + entry("n/a") + directory("n/b") + entry("n/b/c"), entry("n", content=b"2"), "'2'"),
        (entry("m", content=b"1") + entry("n", content=b"2"), link("n", b"m"), "'1'"),
        (entry("m", content=b"1") + directory("n") + entry("n/a"), link("n", b"m"), "'1'"),
    ],
)
def test_later_entry_replaces_an_earlier_one(target, first, second, left):
    found = unpack_entries(target, first, second, entry("behind"))
    assert tree(target).pop("n") == left
    assert sorted(tree(target).keys() - {"m"}) == ["behind", "n"]
    assert found.implied == ()


def test_repeated_directory_keeps_its_contents(target):
    unpack_entries(target, directory("d", 0o700), entry("d/f"), directory("d", 0o711, mtime=3), entry("d/g"))
    assert sorted(tree(target)) == ["d", "d/f", "d/g"]
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o711
    assert (target / "d").stat().st_mtime == 3


def test_directory_entry_after_its_contents_is_not_implied(target):
    found = unpack_entries(target, entry("a/b/f"), directory("a", 0o700, mtime=4))
    assert found.implied == ("a/b",)
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o700
    assert (target / "a").stat().st_mtime == 4
    assert (target / "a/b").stat().st_mtime == 0


def test_replaced_directory_is_not_implied(target):
    assert unpack_entries(target, entry("a/b/f"), entry("a")).implied == ()


def test_replaced_file_keeps_its_other_hard_links(target):
    unpack_entries(target, entry("a", content=b"1"), link("b", b"a"), entry("a", content=b"2"))
    assert tree(target) == {"a": "'2'", "b": "'1'"}


def test_contents_can_exceed_a_block(target):
    content = os.urandom(1 << 20) + b"end"
    unpack_entries(target, entry("big", content=content), entry("small", content=b"s"))
    assert (target / "big").read_bytes() == content
    assert (target / "small").read_bytes() == b"s"


def test_full_disk_is_resource_exhausted(target, monkeypatch):
    def full(self, fd, entry):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(attributes.AttributeWriter, "set_on_file", full)
    with pytest.raises(ResourceExhausted, match="writing 'etc/passwd' failed: No space left on device"):
        unpack_entries(target, entry("etc/passwd"))


def test_kernel_error_names_the_entry(target, monkeypatch):
    def broken(self, fd, entry):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(attributes.AttributeWriter, "set_on_file", broken)
    with pytest.raises(HostError, match="unpack 'a': Input/output error") as caught:
        unpack_entries(target, entry("a"))
    assert caught.value.errno == errno.EIO


def test_unpack_leaves_no_descriptor_open(target):
    before = os.listdir("/proc/self/fd")
    unpack_entries(target, entry("a/b/c/d"), link("e", b"a/b/c/d"), symlink("l", b"a"), entry("l/b/x"))
    for broken in (entry("a/b/c/d/e"), link("a/b/e", b"nothing"), entry("f", FILE, size=10000)):
        with pytest.raises(InvalidArgument):
            unpack(broken, target)
    assert os.listdir("/proc/self/fd") == before


def test_too_large_file_is_not_created(target):
    limits = DEFAULT_LIMITS._replace(size=100)
    with pytest.raises(ResourceExhausted):
        unpack_entries(target, entry("big", content=bytes(101)), limits=limits)
    assert not (target / "big").exists()
