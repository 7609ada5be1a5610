"""Archives that want out: nothing beside the layer's directory is ever touched, looked at or linked."""

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
def test_names_that_lead_up(node, target, name, kind):
    target_name = b"inside" if kind in b"12" else b""
    refused(
        target, entry("inside"), entry(name, kind, target=target_name), match="would lead out of the layer"
    )
    assert sorted(tree(target)) == ["inside"]


@pytest.mark.parametrize("name", [b"../passwd", b"x/../../passwd"])
def test_long_names_that_lead_up(node, target, name):
    refused(target, pax((b"path", name)), entry("a"), match="lead out")
    refused(target, long(b"L", name), entry("a"), match="lead out")
    refused(target, entry("passwd", prefix=name.rpartition(b"/")[0]), match="lead out")
    refused(
        target,
        pax((b"GNU.sparse.name", name), (b"GNU.sparse.size", b"1"), (b"GNU.sparse.map", b"0,1")),
        entry("a", content=b"x"),
        match="lead out",
    )


def test_whiteouts_that_lead_up(node, target):
    refused(target, entry("../.wh.passwd"), match="lead out")
    refused(target, entry("../outside/.wh..wh..opq"), match="lead out")


def test_absolute_names_begin_at_the_layers_root(node, target):
    unpack_entries(target, entry(f"{node}/passwd", content=b"new"), directory("/etc"), entry("//etc/shadow"))
    assert (target / str(node)[1:] / "passwd").read_text() == "new"
    assert (target / "etc/shadow").exists()


def ways_out(node):
    """Links that lead out of the layer, if they are taken at their word."""
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
def test_a_link_out_and_then_a_write_through_it_stays_inside(node, target, way, write):
    with suppress(NoderuntimeError):
        unpack_entries(target, symlink("out", ways_out(node)[way]), write)
    assert os.readlink(target / "out") == os.fsdecode(ways_out(node)[way])


@pytest.mark.parametrize("way", range(9))
@pytest.mark.parametrize("name", [b"out/passwd", b"out/outside/secret", b"out/outside", b"out/outside/link"])
def test_a_hard_link_through_a_link_finds_nothing_outside(node, target, way, name):
    refused(
        target, symlink("out", ways_out(node)[way]), link("mine", name), match="hard link|not in the layer"
    )
    assert not (target / "mine").exists()


@pytest.mark.parametrize(
    "name", [b"/etc/passwd", b"../passwd", b"../outside/secret", b"/proc/self/exe", b".", b"/", b""]
)
def test_a_hard_link_out(node, target, name):
    refused(target, link("mine", name), match="lead out of the layer|is not in the layer|is no file")
    assert tree(target) == {}


def test_a_hard_link_to_a_link_out_does_not_open_it(node, target):
    """The next file of that name replaces the link, and is not written through it."""
    unpack_entries(
        target,
        symlink("a", os.fsencode(node / "passwd")),
        link("b", b"a"),
        entry("b", content=b"new"),
        entry("a", content=b"newer"),
    )
    assert tree(target) == {"a": "'newer'", "b": "'new'"}


@pytest.mark.parametrize("kind", [DIRECTORY, *b"01346", CHARACTER])
def test_an_entry_never_follows_a_link_at_its_end(node, target, kind, request):
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


def test_a_directory_does_not_dress_what_a_link_points_at(node, target):
    """The entry replaces the link, so that neither mode nor attributes nor time reach outside."""
    unpack_entries(
        target,
        symlink("d", os.fsencode(node / "outside")),
        pax(xattr(b"user.evil", b"1"), (b"mtime", b"1")) + directory("d", 0o777),
    )
    assert tree(target) == {"d": "dir"}


def test_a_directory_that_becomes_a_link_is_not_dressed_through_it(node, target):
    unpack_entries(target, directory("d", 0o777), entry("d/f"), symlink("d", os.fsencode(node / "outside")))
    assert tree(target) == {"d": f"-> {node / 'outside'}"}


def test_a_directory_on_the_way_that_becomes_a_link(node, target):
    unpack_entries(
        target,
        entry("a/b/c/f"),
        symlink("a/b", os.fsencode(node)),
        entry("a/b/passwd", content=b"new"),
        symlink("a", b".."),
        entry("a/b/passwd", content=b"newer"),
    )
    assert tree(target).pop("b/passwd") == "'newer'"


def test_links_of_the_layer_lead_where_they_lead_in_a_container(node, target):
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


def test_links_in_a_circle(node, target):
    refused(target, symlink("a", b"b"), symlink("b", b"a"), entry("a/f"), match="too many links")
    refused(target, symlink("c", b"c"), entry("c/f"), match="too many links")
    refused(target, symlink("d", b"d/d/d/d"), entry("d/f"), match="too many links")


def test_links_that_multiply(node, target):
    """Each level is twice the way of the one below it."""
    levels = [symlink(f"l{n}", b"l%d/../l%d" % (n - 1, n - 1)) for n in range(1, 40)]
    refused(target, directory("l0"), *levels, entry("l39/f"), match="too many links")


def test_a_way_through_a_file(node, target):
    refused(target, entry("f"), entry("f/x"), match="leads through 'f', which is no directory")
    refused(target, entry("f"), symlink("l", b"f"), entry("l/x"), match="which is no directory")
    refused(target, entry("p", FIFO), entry("p/x"), match="which is no directory")
    refused(target, entry("f"), link("g", b"f/x"), match="which is no directory")


def test_a_root_that_is_no_directory(node, target):
    for kind in b"0136":
        refused(target, entry("./", kind, target=b"x"), match="root '\\./' is no directory")
    refused(target, symlink("/", os.fsencode(node)), match="root '/' is no directory")


def test_hard_links_that_link_nothing(node, target):
    refused(target, link("a", b"a"), match="not in the layer")
    refused(target, entry("b"), link("b", b"b"), match="not in the layer")
    refused(target, link("c", b"later"), entry("later"), match="not in the layer")
    refused(target, directory("d"), link("e", b"d"), match="is no file")
    refused(target, entry("g/f"), link("g", b"g/f"), match="not in the layer")
    refused(target, entry("h", FIFO), link("h/i", b"h"), match="which is no directory")


def test_symbolic_links_to_nothing_and_to_too_much(node, target):
    refused(target, symlink("a", b""), match="link to nothing")
    refused(target, pax((b"linkpath", b"t" * 5000)), symlink("a", b"x"), match="'a' cannot be unpacked")


def test_names_that_are_too_long(node, target):
    refused(target, pax((b"path", b"n" * 256)), entry("a"), match="too long")
    refused(target, pax((b"path", b"n/" * 2100)), entry("a"), match="too long")
    refused(target, pax((b"path", b"n/" * 300)), entry("a"), match="too deep")
    refused(target, pax((b"linkpath", b"n" * 256)), link("a", b""), match="too long")


def test_links_do_not_lead_deeper_than_names(node, target):
    deep = b"d/" * 200
    refused(
        target,
        pax((b"linkpath", deep + b"s")) + symlink("s", b""),
        pax((b"linkpath", deep)) + symlink("t", b""),
        pax((b"path", deep + b"s")) + symlink("x", b"/t/../../" + b"e/" * 20),
        pax((b"path", b"t/" + deep + b"f")) + entry("x"),
        match="too deep",
    )


def test_words_of_a_stranger_are_shown_as_one_printable_line(node, target):
    refused(target, entry(b"\x1b[2J\n\xff" + b"x" * 80, b"z"[0]), match="unknown type")
    refused(target, pax((b"path", b"../" + b"\n" * 4000)), entry("a"), match="lead out")
