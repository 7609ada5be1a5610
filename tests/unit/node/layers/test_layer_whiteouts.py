"""What a layer removes from those below it."""

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


def test_a_removed_name_is_a_device_with_number_zero(target):
    found = unpack_entries(target, directory("d"), whiteout("d/gone"), whiteout("top"), entry("d/here"))
    for name in ("d/gone", "top"):
        status = os.lstat(target / name)
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    assert tree(target) == {"d": "dir", "d/gone": "chr", "d/here": "''", "top": "chr"}
    assert not opaque(target / "d")
    assert not found.opaque


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "hard link"])
def test_a_whiteout_is_one_whatever_it_is_made_of(target, kind):
    sign = {
        "file": entry("a/.wh.b", content=b"x"),
        "directory": directory("a/.wh.b"),
        "symlink": symlink("a/.wh.b", b"x"),
        "hard link": link("a/.wh.b", b"x"),
    }[kind]
    unpack_entries(target, sign, entry("behind", content=b"b"))
    assert tree(target) == {"a": "dir", "a/b": "chr", "behind": "'b'"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_new_file_hides_the_old_one_anyway(target, order):
    unpack_entries(target, *[whiteout("f"), entry("f", content=b"new")][::order])
    assert tree(target) == {"f": "'new'"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_new_directory_hides_the_old_one_by_being_opaque(target, order):
    unpack_entries(target, *[whiteout("a/d"), directory("a/d")][::order], entry("a/d/f"))
    assert opaque(target / "a/d")
    assert not opaque(target / "a")
    assert tree(target) == {"a": "dir", "a/d": "dir", "a/d/f": "''"}


@pytest.mark.parametrize("order", [1, -1])
def test_so_does_one_that_has_no_entry_of_its_own(target, order):
    found = unpack_entries(target, *[whiteout("d"), entry("d/f")][::order])
    assert opaque(target / "d")
    assert found.implied == ("d",)


def test_an_opaque_directory(target):
    unpack_entries(target, directory("d", 0o700, mtime=6), entry("d/.wh..wh..opq"), entry("d/new"))
    assert opaque(target / "d")
    assert tree(target) == {"d": "dir", "d/new": "''"}
    assert (target / "d").stat().st_mtime == 6


def test_an_opaque_directory_without_an_entry(target):
    found = unpack_entries(target, entry("a/d/.wh..wh..opq"))
    assert opaque(target / "a/d")
    assert not opaque(target / "a")
    assert found.implied == ("a", "a/d")


@pytest.mark.parametrize("name", [".wh..wh..opq", "./.wh..wh..opq", "/.wh..wh..opq"])
def test_a_layer_that_hides_all_layers_below_it(target, name):
    found = unpack_entries(target, entry("a"), entry(name), entry("b"))
    assert found.opaque
    assert tree(target) == {"a": "''", "b": "''"}
    assert not opaque(target)


def test_an_opaque_directory_that_becomes_a_file_and_a_directory_again(target):
    unpack_entries(target, entry("d/.wh..wh..opq"), entry("d"), directory("d"))
    assert tree(target) == {"d": "dir"}


def test_the_books_of_aufs_are_no_files(target):
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
def test_a_whiteout_of_no_name_is_refused(target, name):
    with pytest.raises(InvalidArgument, match="which is no name"):
        unpack_entries(target, entry(name))


def test_whiteouts_go_through_links_like_all_names(target):
    unpack_entries(target, directory("real"), symlink("alias", b"real"), whiteout("alias/gone"))
    assert tree(target) == {"real": "dir", "real/gone": "chr", "alias": "-> real"}


def test_a_name_that_only_looks_like_one(target):
    unpack_entries(target, entry("a.wh.b"), entry("wh.c"), entry(".whatever"), entry("d/.w"))
    assert sorted(tree(target)) == [".whatever", "a.wh.b", "d", "d/.w", "wh.c"]
