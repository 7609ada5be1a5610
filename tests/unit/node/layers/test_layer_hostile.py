"""Hostile archives: nothing outside the layer's directory is changed, read or linked."""

import os
from contextlib import suppress

import pytest
from layer_archives import (
    CHARACTER,
    DIRECTORY,
    FIFO,
    directory,
    entry,
    link,
    long,
    pax,
    refused,
    symlink,
    tree,
    unpack_entries,
    xattr,
)

from noderuntime.core.errors import NoderuntimeError


@pytest.mark.parametrize("kind", [0, *b"0123456"])
@pytest.mark.parametrize(
    "name",
    ["..", "../passwd", "a/../../passwd", "/../passwd", "./../outside/new", "a/..", "../../../../tmp/new"],
)
def test_name_with_dot_dot_is_refused(node, target, name, kind):
    target_name = b"inside" if kind in b"12" else b""
    refused(target, entry("inside"), entry(name, kind, target=target_name), match="leads out of the layer")
    assert sorted(tree(target)) == ["inside"]


@pytest.mark.parametrize("name", [b"../passwd", b"x/../../passwd"])
def test_long_name_with_dot_dot_is_refused(node, target, name):
    refused(target, pax((b"path", name)), entry("a"), match="leads out")
    refused(target, long(b"L", name), entry("a"), match="leads out")
    refused(target, entry("passwd", prefix=name.rpartition(b"/")[0]), match="leads out")
    refused(
        target,
        pax((b"GNU.sparse.name", name), (b"GNU.sparse.size", b"1"), (b"GNU.sparse.map", b"0,1")),
        entry("a", content=b"x"),
        match="leads out",
    )


def test_whiteout_with_dot_dot_is_refused(node, target):
    refused(target, entry("../.wh.passwd"), match="leads out")
    refused(target, entry("../outside/.wh..wh..opq"), match="leads out")


def test_absolute_names_are_relative_to_the_layers_root(node, target):
    unpack_entries(target, entry(f"{node}/passwd", content=b"new"), directory("/etc"), entry("//etc/shadow"))
    assert (target / str(node)[1:] / "passwd").read_text() == "new"
    assert (target / "etc/shadow").exists()


def ways_out(node):
    """Return targets of symlinks that lead out of the layer on the host."""
    return [
        os.fsencode(node),
        b"..",
        b"../",
        b"../../../../../../../../../../../..%b" % os.fsencode(node),
        b"a/../..",
        b"./..",
        b"/proc/self/cwd",
        b"/proc/self/root%b" % os.fsencode(node),
        b"/proc/self/fd/3/..",
    ]


@pytest.mark.parametrize("way", range(9))
@pytest.mark.parametrize(
    "write",
    [
        entry("out/passwd", content=b"new"),
        entry("out/outside/secret", content=b"new"),
        directory("out/outside"),
        directory("out/new/deep"),
        symlink("out/passwd", b"/etc/passwd"),
        entry("out/passwd", FIFO),
        entry("out/.wh.passwd"),
        entry("out/outside/.wh..wh..opq"),
        entry("inside") + link("out/passwd", b"inside"),
    ],
)
def test_write_through_a_symlink_stays_in_the_layer(node, target, way, write):
    with suppress(NoderuntimeError):
        unpack_entries(target, symlink("out", ways_out(node)[way]), write)
    assert os.readlink(target / "out") == os.fsdecode(ways_out(node)[way])


@pytest.mark.parametrize("way", range(9))
@pytest.mark.parametrize("name", [b"out/passwd", b"out/outside/secret", b"out/outside", b"out/outside/link"])
def test_hard_link_through_a_symlink_stays_in_the_layer(node, target, way, name):
    refused(
        target,
        symlink("out", ways_out(node)[way]),
        link("mine", name),
        match="hard link|does not exist in the layer",
    )
    assert not (target / "mine").exists()


@pytest.mark.parametrize(
    "name", [b"/etc/passwd", b"../passwd", b"../outside/secret", b"/proc/self/exe", b".", b"/", b""]
)
def test_hard_link_out_of_the_layer_is_refused(node, target, name):
    refused(
        target, link("mine", name), match="leads out of the layer|does not exist in the layer|is not a file"
    )
    assert tree(target) == {}


def test_file_replaces_a_hard_link_to_a_symlink(node, target):
    """The next file with that name replaces the symlink instead of writing to its target."""
    unpack_entries(
        target,
        symlink("a", os.fsencode(node / "passwd")),
        link("b", b"a"),
        entry("b", content=b"new"),
        entry("a", content=b"newer"),
    )
    assert tree(target) == {"a": "'newer'", "b": "'new'"}


@pytest.mark.parametrize("kind", [DIRECTORY, *b"01346", CHARACTER])
def test_entry_replaces_a_symlink_with_its_name(node, target, kind, request):
    if kind in b"34":
        request.getfixturevalue("root")
    unpack_entries(
        target,
        entry("inside"),
        symlink("n", os.fsencode(node / "outside")),
        entry("n", kind, target=b"inside", content=b"", mode=0o7777, mtime=1),
    )
    assert not os.path.islink(target / "n")
    assert os.readlink(node / "outside/link") == "secret"


def test_directory_entry_does_not_change_a_symlinks_target(node, target):
    """The entry replaces the symlink, so mode, attributes and time of its target do not change."""
    unpack_entries(
        target,
        symlink("d", os.fsencode(node / "outside")),
        pax(xattr(b"user.evil", b"1"), (b"mtime", b"1")) + directory("d", 0o777),
    )
    assert tree(target) == {"d": "dir"}


def test_directory_replaced_by_a_symlink_sets_no_attributes(node, target):
    unpack_entries(target, directory("d", 0o777), entry("d/f"), symlink("d", os.fsencode(node / "outside")))
    assert tree(target) == {"d": f"-> {node / 'outside'}"}


def test_parent_directory_can_be_replaced_by_a_symlink(node, target):
    unpack_entries(
        target,
        entry("a/b/c/f"),
        symlink("a/b", os.fsencode(node)),
        entry("a/b/passwd", content=b"new"),
        symlink("a", b".."),
        entry("a/b/passwd", content=b"newer"),
    )
    assert tree(target).pop("b/passwd") == "'newer'"


def test_symlinks_are_resolved_as_in_a_container(node, target):
    unpack_entries(
        target,
        directory("usr"),
        symlink("lib", b"usr/lib"),
        entry("lib/a", content=b"1"),
        symlink("abs", b"/usr/./lib//"),
        entry("abs/b", content=b"2"),
        directory("x"),
        symlink("x/up", b"../../../usr"),
        entry("x/up/c", content=b"3"),
        symlink("chain", b"x/up/lib/.."),
        directory("chain/d", 0o700),
        symlink("self", b"."),
        entry("self/self/e", content=b"5"),
    )
    found = tree(target)
    assert {name: found[name] for name in found if name.startswith("usr") or name == "e"} == {
        "usr": "dir",
        "usr/lib": "dir",
        "usr/lib/a": "'1'",
        "usr/lib/b": "'2'",
        "usr/c": "'3'",
        "usr/d": "dir",
        "e": "'5'",
    }


def test_symlink_loop_is_refused(node, target):
    refused(target, symlink("a", b"b"), symlink("b", b"a"), entry("a/f"), match="too many symlinks")
    refused(target, symlink("c", b"c"), entry("c/f"), match="too many symlinks")
    refused(target, symlink("d", b"d/d/d/d"), entry("d/f"), match="too many symlinks")


def test_exponential_symlinks_are_refused(node, target):
    """Each level resolves to twice the steps of the level below."""
    levels = [symlink(f"l{n}", b"l%d/../l%d" % (n - 1, n - 1)) for n in range(1, 40)]
    refused(target, directory("l0"), *levels, entry("l39/f"), match="too many symlinks")


def test_path_through_a_file_is_refused(node, target):
    refused(target, entry("f"), entry("f/x"), match="uses 'f' as a directory, but it is not one")
    refused(target, entry("f"), symlink("l", b"f"), entry("l/x"), match="as a directory, but it is not one")
    refused(target, entry("p", FIFO), entry("p/x"), match="as a directory, but it is not one")
    refused(target, entry("f"), link("g", b"f/x"), match="as a directory, but it is not one")


def test_root_must_be_a_directory(node, target):
    for kind in b"0136":
        refused(target, entry("./", kind, target=b"x"), match="root '\\./' is not a directory")
    refused(target, symlink("/", os.fsencode(node)), match="root '/' is not a directory")


def test_hard_link_to_a_missing_file_is_refused(node, target):
    refused(target, link("a", b"a"), match="does not exist in the layer")
    refused(target, entry("b"), link("b", b"b"), match="does not exist in the layer")
    refused(target, link("c", b"later"), entry("later"), match="does not exist in the layer")
    refused(target, directory("d"), link("e", b"d"), match="is not a file")
    refused(target, entry("g/f"), link("g", b"g/f"), match="does not exist in the layer")
    refused(target, entry("h", FIFO), link("h/i", b"h"), match="as a directory, but it is not one")


def test_empty_or_too_long_symlink_target_is_refused(node, target):
    refused(target, symlink("a", b""), match="symlink with an empty target")
    refused(
        target, pax((b"linkpath", b"t" * 5000)), symlink("a", b"x"), match="entry 'a' of the layer is invalid"
    )


def test_too_long_name_is_refused(node, target):
    refused(target, pax((b"path", b"n" * 256)), entry("a"), match="too long")
    refused(target, pax((b"path", b"n/" * 2100)), entry("a"), match="too long")
    refused(target, pax((b"path", b"n/" * 300)), entry("a"), match="nested too deeply")
    refused(target, pax((b"linkpath", b"n" * 256)), link("a", b""), match="too long")


def test_depth_limit_applies_to_resolved_symlinks(node, target):
    deep = b"d/" * 200
    refused(
        target,
        pax((b"linkpath", deep + b"s")) + symlink("s", b""),
        pax((b"linkpath", deep)) + symlink("t", b""),
        pax((b"path", deep + b"s")) + symlink("x", b"/t/../../" + b"e/" * 20),
        pax((b"path", b"t/" + deep + b"f")) + entry("x"),
        match="nested too deeply",
    )


def test_errors_quote_untrusted_names(node, target):
    refused(target, entry(b"\x1b[2J\n\xff" + b"x" * 80, b"z"[0]), match="unknown type")
    refused(target, pax((b"path", b"../" + b"\n" * 4000)), entry("a"), match="leads out")
