"""Whiteouts and opaque directories."""

import os
import stat

import pytest
from layer_archives import directory, entry, link, symlink, tree, unpack_entries

from noderuntime.core.errors import InvalidArgument

OPAQUE = "trusted.overlay.opaque"

pytestmark = pytest.mark.usefixtures("root")


def whiteout(name):
    head, _, tail = name.rpartition("/")
    return entry(f"{head}/.wh.{tail}" if head else f".wh.{tail}")


def opaque(path):
    return OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"


def test_whiteout_becomes_character_device_zero(target):
    found = unpack_entries(target, directory("d"), whiteout("d/gone"), whiteout("top"), entry("d/here"))
    for name in ("d/gone", "top"):
        status = os.lstat(target / name)
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    assert tree(target) == {"d": "dir", "d/gone": "chr", "d/here": "''", "top": "chr"}
    assert not opaque(target / "d")
    assert not found.opaque


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "hard link"])
def test_whiteout_can_have_any_entry_type(target, kind):
    sign = {
        "file": entry("a/.wh.b", content=b"x"),
        "directory": directory("a/.wh.b"),
        "symlink": symlink("a/.wh.b", b"x"),
        "hard link": link("a/.wh.b", b"x"),
    }[kind]
    unpack_entries(target, sign, entry("behind", content=b"b"))
    assert tree(target) == {"a": "dir", "a/b": "chr", "behind": "'b'"}


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_of_a_new_file_is_ignored(target, order):
    unpack_entries(target, *[whiteout("f"), entry("f", content=b"new")][::order])
    assert tree(target) == {"f": "'new'"}


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_of_a_new_directory_makes_it_opaque(target, order):
    unpack_entries(target, *[whiteout("a/d"), directory("a/d")][::order], entry("a/d/f"))
    assert opaque(target / "a/d")
    assert not opaque(target / "a")
    assert tree(target) == {"a": "dir", "a/d": "dir", "a/d/f": "''"}


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_of_an_implied_directory_makes_it_opaque(target, order):
    found = unpack_entries(target, *[whiteout("d"), entry("d/f")][::order])
    assert opaque(target / "d")
    assert found.implied == ("d",)


def test_opaque_marker_sets_the_attribute(target):
    unpack_entries(target, directory("d", 0o700, mtime=6), entry("d/.wh..wh..opq"), entry("d/new"))
    assert opaque(target / "d")
    assert tree(target) == {"d": "dir", "d/new": "''"}
    assert (target / "d").stat().st_mtime == 6


def test_opaque_marker_implies_its_directory(target):
    found = unpack_entries(target, entry("a/d/.wh..wh..opq"))
    assert opaque(target / "a/d")
    assert not opaque(target / "a")
    assert found.implied == ("a", "a/d")


@pytest.mark.parametrize("name", [".wh..wh..opq", "./.wh..wh..opq", "/.wh..wh..opq"])
def test_opaque_marker_in_the_root_is_reported(target, name):
    found = unpack_entries(target, entry("a"), entry(name), entry("b"))
    assert found.opaque
    assert tree(target) == {"a": "''", "b": "''"}
    assert not opaque(target)


def test_replaced_opaque_directory_is_not_opaque(target):
    unpack_entries(target, entry("d/.wh..wh..opq"), entry("d"), directory("d"))
    assert tree(target) == {"d": "dir"}


def test_aufs_metadata_is_ignored(target):
    found = unpack_entries(
        target,
        directory(".wh..wh.plnk"),
        entry(".wh..wh.plnk/12.34", content=b"x"),
        directory(".wh..wh.orph"),
        entry(".wh..wh.aufs"),
        entry("d/.wh..wh.other"),
        entry("a"),
    )
    assert tree(target) == {"a": "''"}
    assert found.implied == ()


@pytest.mark.parametrize("name", [".wh.", "a/.wh.", ".wh..", "a/.wh..", ".wh...", "a/.wh..."])
def test_whiteout_of_an_invalid_name_is_refused(target, name):
    with pytest.raises(InvalidArgument, match="whiteout of the invalid name"):
        unpack_entries(target, entry(name))


def test_whiteout_path_resolves_symlinks(target):
    unpack_entries(target, directory("real"), symlink("alias", b"real"), whiteout("alias/gone"))
    assert tree(target) == {"real": "dir", "real/gone": "chr", "alias": "-> real"}


def test_similar_name_is_not_a_whiteout(target):
    unpack_entries(target, entry("a.wh.b"), entry("wh.c"), entry(".whatever"), entry("d/.w"))
    assert sorted(tree(target)) == [".whatever", "a.wh.b", "d", "d/.w", "wh.c"]
