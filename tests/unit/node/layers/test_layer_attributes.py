"""Owners, modes, times and extended attributes of what was unpacked."""

import os
import stat

import pytest
from layer_archives import (
    FIFO,
    directory,
    entry,
    pax,
    symlink,
    unpack_entries,
    xattr,
)

from noderuntime.core.errors import HostError, InvalidArgument

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep in the kernel's format."""


OTHERS = {"uid": 1234, "gid": 4321}


def test_modes_are_set_with_special_bits(target):
    unpack_entries(
        target,
        directory("d", 0o1777),
        directory("g", 0o2750),
        entry("g/inside"),
        entry("f", mode=0o000),
        entry("s", mode=0o4755),
        entry("x", mode=0o100755),
        entry("p", FIFO, mode=0o2622),
    )
    modes = {name: stat.S_IMODE(os.stat(target / name).st_mode) for name in ("d", "g", "f", "s", "x", "p")}
    assert modes == {"d": 0o1777, "g": 0o2750, "f": 0, "s": 0o4755, "x": 0o755, "p": 0o2622}
    assert (target / "g/inside").stat().st_gid == os.getegid()


def test_root_gets_the_attributes_of_its_entry(target):
    unpack_entries(target, entry("f"), directory("./", 0o555, mtime=77), entry("g"))
    assert stat.S_IMODE(target.stat().st_mode) == 0o555
    assert target.stat().st_mtime_ns == 77 * 10**9


def test_root_without_an_entry_gets_default_attributes(target):
    target.mkdir(mode=0o700)
    unpack_entries(target, entry("f"))
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert target.stat().st_mtime_ns == 0


def test_times_are_exact_for_directories_with_late_entries(target):
    time = pax((b"mtime", b"1234567890.123456789"))
    unpack_entries(
        target,
        time + directory("d"),
        time + entry("d/f", content=b"x"),
        time + directory("d/e"),
        time + symlink("d/l", b"f"),
        time + entry("d/p", FIFO),
        entry("d/e/late", mtime=5),
        pax((b"mtime", b"-1.5")) + entry("d/old"),
    )
    for name in ("d", "d/f", "d/e", "d/l", "d/p"):
        assert os.lstat(target / name).st_mtime_ns == 1234567890123456789, name
    assert (target / "d/e/late").stat().st_mtime == 5
    assert (target / "d/old").stat().st_mtime == -1.5


@pytest.mark.usefixtures("root")
def test_owners_are_set_for_all_file_types(target):
    unpack_entries(
        target,
        directory("d", **OTHERS),
        entry("d/f", content=b"x", **OTHERS),
        symlink("d/l", b"nowhere", **OTHERS),
        entry("d/p", FIFO, **OTHERS),
        pax((b"uid", b"4294967294"), (b"gid", b"4294967294")) + entry("d/n"),
    )
    for name in ("d", "d/f", "d/l", "d/p"):
        found = os.lstat(target / name)
        assert (found.st_uid, found.st_gid) == (1234, 4321), name
    assert (target / "d/n").stat().st_uid == (target / "d/n").stat().st_gid == 0xFFFFFFFE


@pytest.mark.usefixtures("root")
def test_set_id_bits_and_capabilities_survive_chown(target):
    unpack_entries(
        target,
        entry("suid", mode=0o6755, content=b"x", **OTHERS),
        pax(xattr(b"security.capability", CAPABILITY))
        + entry("capable", content=b"x", mode=0o2755, **OTHERS),
    )
    assert stat.S_IMODE((target / "suid").stat().st_mode) == 0o6755
    assert stat.S_IMODE((target / "capable").stat().st_mode) == 0o2755
    assert os.getxattr(target / "capable", "security.capability") == CAPABILITY


def test_extended_attributes_are_set(target):
    attributes = pax(xattr(b"user.a", b"1\0="), xattr("user.ä".encode(), b""), (b"mtime", b"9"))
    unpack_entries(target, attributes + directory("d"), attributes + entry("d/f"))
    for name in ("d", "d/f"):
        assert os.getxattr(target / name, "user.a") == b"1\0="
        assert os.getxattr(target / name, "user.ä") == b""
        assert os.stat(target / name).st_mtime == 9


@pytest.mark.usefixtures("root")
def test_extended_attributes_are_set_on_symlinks_and_fifos(target):
    unpack_entries(
        target,
        pax(xattr(b"security.a", b"1")) + symlink("l", b"nowhere"),
        pax(xattr(b"security.a", b"2")) + entry("p", FIFO),
    )
    assert os.getxattr(target / "l", "security.a", follow_symlinks=False) == b"1"
    assert os.getxattr(target / "p", "security.a") == b"2"


def test_unsupported_extended_attributes_are_skipped(target):
    attributes = pax(xattr(b"user.a", b"1"), xattr(b"nonsense", b"2"))
    unpack_entries(
        target, attributes + symlink("l", b"x"), attributes + entry("p", FIFO), attributes + entry("f")
    )
    assert os.listxattr(target / "l", follow_symlinks=False) == []
    assert os.listxattr(target / "p") == []
    assert os.listxattr(target / "f") == ["user.a"]


@pytest.mark.usefixtures("root")
def test_invalid_capabilities_are_refused(target):
    with pytest.raises((HostError, InvalidArgument), match="capable"):
        unpack_entries(target, pax(xattr(b"security.capability", b"nonsense")) + entry("capable"))


@pytest.mark.usefixtures("root")
def test_reserved_extended_attributes_are_ignored(target):
    attributes = pax(
        xattr(b"trusted.overlay.redirect", b"/etc"),
        xattr(b"trusted.overlay.opaque", b"y"),
        xattr(b"user.overlay.metacopy", b""),
        xattr(b"trusted.else", b"1"),
        xattr(b"security.else", b"1"),
    )
    unpack_entries(
        target, attributes + directory("d"), attributes + entry("f"), attributes + symlink("l", b"f")
    )
    for name in ("d", "f", "l"):
        assert os.listxattr(target / name, follow_symlinks=False) == ["security.else"], name
