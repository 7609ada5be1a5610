"""References against the grammar of the distribution project, which is written down here independently."""

import ipaddress
import re

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.reference import (
    Reference,
    candidates,
    image_id,
    is_short,
    parse,
    same_registry,
    stored_name,
)

HEX = "0123456789abcdef" * 4
QUICK = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

LABEL = "(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9])"
DOMAIN = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?")
COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
REMOTE = re.compile(
    rf"{COMPONENT}(?:/{COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@(?:{DIGEST}))?"
)


def valid(text: str) -> bool:
    """Return whether a text is valid by Docker's grammar and our documented restrictions."""
    first, slash, rest = text.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    host, remote = (first, rest) if named else ("docker.io", text)
    matched = DOMAIN.fullmatch(host)
    if not matched or not REMOTE.fullmatch(remote) or re.fullmatch(r"(sha256:)?[0-9a-f]{64}", text):
        return False
    try:
        ipaddress.IPv6Address(matched["ipv6"] or "::")
    except ValueError:
        return False
    return 0 < int(matched["port"] or 1) < 65536


def words(first, other="", limit=6):
    return st.builds("".join, st.tuples(st.sampled_from(first), st.text(other or first, max_size=limit)))


LOWER = "abz019"
LETTERS = "aAzZ09"
names = st.lists(words(LETTERS), min_size=2, max_size=4).map(".".join)
hosts = (
    names
    | st.sampled_from(["localhost", "Registry", "a-b.c"])
    | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
    | st.ip_addresses(v=4).map(str)
)
ports = st.just("") | st.integers(1, 65535).map(":{}".format)
registries = st.builds("".join, st.tuples(hosts, ports))
separators = st.sampled_from([".", "_", "__", "-", "---"])
components = words(LOWER) | st.builds("".join, st.tuples(words(LOWER), separators, words(LOWER)))
paths = st.lists(components, min_size=1, max_size=4).map("/".join)
tags = words("aZ9_", "aZ9_.-", 20)
digests = st.sampled_from([f"sha256:{HEX}", f"sha384:{HEX}{HEX[:32]}", f"sha512:{HEX}{HEX}"])
full = st.tuples(registries, paths, st.just("") | tags, st.just("") | digests)


def written(registry, path, tag, digest):
    return f"{registry}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


@QUICK
@given(parts=full)
def test_generated_references_are_parsed_into_their_parts(parts):
    registry, path, tag, digest = parts
    found = parse(written(*parts))
    assert (found.registry, found.repository) == (registry, path)
    assert (found.tag, found.digest) == (tag or ("" if digest else "latest"), digest)


@QUICK
@given(parts=full)
def test_a_reference_round_trips(parts):
    found = parse(written(*parts))
    assert parse(str(found)) == found
    assert parse(found.stored).stored == found.stored
    assert stored_name(str(found)) == found.stored


@QUICK
@given(path=paths, tag=tags)
def test_a_short_name_is_of_docker_io(path, tag):
    assume(is_short(path))
    found = parse(f"{path}:{tag}")
    assert found.registry == "docker.io"
    assert found.repository == (path if "/" in path else f"library/{path}")
    assert parse(str(found)) == found


@settings(QUICK, max_examples=500)
@given(
    text=st.text(max_size=40)
    | st.text("aA0.:/@_-[]", max_size=16)
    | st.builds(
        lambda parts, at, what: written(*parts)[:at] + what, full, st.integers(0, 60), st.text(max_size=3)
    )
)
@example("a" * 64 + ".b/c")
@example("[::1]/a")
@example("[1]/a")
@example("a:0/b")
@example("a:65536/b")
@example("a/b:c/d")
@example("a\n")
@example("a@")
@example(f"a@sha256:{HEX}\n")
@example("\u0660:5000/a")
@example("a\udcff")
def test_any_text_matches_the_grammar_or_fails_in_one_line(text):
    refused = ""
    try:
        assert parse(str(parse(text))) == parse(text)
    except InvalidArgument as error:
        refused = str(error)
    assert valid(text) is not bool(refused)
    assert refused.isascii()
    assert "\n" not in refused
    assert len(refused) < 600


@pytest.mark.parametrize(
    "text",
    [
        f"{'a' * 64}.example/a",
        f"{'.'.join(['a' * 49] * 6)}/a",
        f"registry.example/{'a' * 256}",
        "registry.example:0/a",
        "registry.example:65536/a",
        "[::1/a",
        "[::g]/a",
        "[127.0.0.1]/a",
        "[fe80::1%eth0]/a",
        f"a@sha256:{HEX.upper()}",
        f"a@md5:{HEX}",
        f"a@sha256:{HEX}@sha256:{HEX}",
        f"sha256:{HEX}",
        HEX,
    ],
)
def test_references_that_cannot_be_requested_are_rejected(text):
    with pytest.raises(InvalidArgument, match="is invalid"):
        parse(text)


def test_the_longest_reference_is_accepted():
    assert parse(f"{'.'.join(['a' * 62] * 4)}/{'b' * 255}:{'c' * 128}@sha512:{HEX * 2}")


def test_a_short_name_is_searched_in_configured_registries():
    found = candidates("team/app:1", ["one.example", "docker.io", "one.example"])
    assert [str(one) for one in found] == ["one.example/team/app:1", "docker.io/team/app:1"]
    assert [str(one) for one in candidates("app", ["docker.io", "one.example:5000"])] == [
        "docker.io/library/app:latest",
        "one.example:5000/app:latest",
    ]


def test_a_full_name_is_searched_in_its_registry_only():
    for search in (["one.example", "two.example"], []):
        assert candidates("localhost/app", search) == (Reference("localhost", "app", "latest"),)


def test_a_short_name_without_a_search_is_an_error():
    with pytest.raises(InvalidArgument, match="'app' has no registry, and none is configured"):
        candidates("app", [])
    with pytest.raises(InvalidArgument, match="is invalid"):
        candidates("App", [])


@pytest.mark.parametrize("text", ["app", "team/app", "app:1.2", f"app@sha256:{HEX}", "a.b:c", "localhost"])
def test_short_names_are_recognized(text):
    assert is_short(text)


@pytest.mark.parametrize("text", ["a.b/c", "a:5000/c", "localhost/c", "Team/app", "[::1]/a"])
def test_full_names_are_recognized(text):
    assert not is_short(text)


def test_image_ids_are_recognized_in_both_forms():
    assert image_id(HEX) == image_id(f"sha256:{HEX}") == f"sha256:{HEX}"
    assert [image_id(text) for text in ("", HEX[1:], HEX.upper(), f"{HEX}\n", f"a@sha256:{HEX}")] == [""] * 5
    assert stored_name(HEX) == f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("address", "registry", "same"),
    [
        ("registry.example", "registry.example", True),
        ("https://registry.example/v2/", "registry.example", True),
        ("Registry.Example:5000", "registry.example:5000", True),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("registry-1.docker.io", "docker.io", True),
        ("registry.example", "registry.example:5000", False),
        ("registry.example.evil", "registry.example", False),
        ("evil.example/registry.example", "registry.example", False),
        ("https://registry.example@evil.example", "registry.example", False),
        ("", "registry.example", False),
    ],
)
def test_addresses_are_matched_to_registries(address, registry, same):
    assert same_registry(address, registry) is same
