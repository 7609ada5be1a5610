import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.reference import digest_of, name_of, stored_name

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (HEX, f"sha256:{HEX}"),
        (f"sha256:{HEX}", f"sha256:{HEX}"),
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("bitnami/nginx", "docker.io/bitnami/nginx:latest"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ("localhost/a/b", "localhost/a/b:latest"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a__b.c-d:x", "[::1]:5000/a__b.c-d:x"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}"),
        (f"host.example:80/a:tag@sha256:{HEX}", f"host.example:80/a@sha256:{HEX}"),
    ],
)
def test_references_map_to_names_in_the_store(reference, name):
    assert stored_name(reference) == name


@pytest.mark.parametrize(
    "reference",
    [
        "",
        ":",
        "/",
        "a:",
        "busybox:",
        "Busy",
        "a//b",
        "../a",
        "a/../b",
        "a@",
        "a@sha256:12",
        "a b",
        "a\nb",
        "host.example/",
        "-a/b",
        "a:t:t",
        f"a:{'t' * 129}",
        "x" * 10_000,
        "a\udcff",
        "http://host.example/a",
    ],
)
def test_invalid_references_fail_with_one_short_line(reference):
    with pytest.raises(InvalidArgument) as caught:
        stored_name(reference)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    str(caught.value).encode()


DIGESTS = (
    "docker.io/library/app@sha256:" + "1" * 64,
    "example.org/app@sha256:" + "1" * 64,
    "example.org/app@sha256:" + "2" * 64,
    "example.org/application@sha256:" + "1" * 64,
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("app:1", DIGESTS[0]),
        ("example.org/app:1", DIGESTS[1]),
        (DIGESTS[2], DIGESTS[2]),
        (f"example.org/app:1@sha256:{'2' * 64}", DIGESTS[2]),
        ("example.org/application", DIGESTS[3]),
        ("example.org/other:1", DIGESTS[0]),
        ("sha256:" + "3" * 64, DIGESTS[0]),
        ("", DIGESTS[0]),
    ],
)
def test_digest_of_a_name_is_that_of_its_repository(name, found):
    assert digest_of(DIGESTS, name) == found
    assert digest_of((), name) == ""


NAMES = (
    "docker.io/library/app:1",
    "own.example/team/app:1",
    "own.example/team/app:2",
    DIGESTS[1],
    "not/A:name@",
)


@pytest.mark.parametrize(
    ("requested", "found"),
    [
        ("app:1", NAMES[0]),
        ("own.example/team/app:2", NAMES[2]),
        ("team/app:2", NAMES[2]),
        (f"example.org/app:9@sha256:{'1' * 64}", DIGESTS[1]),
        ("own.example/team/app", NAMES[0]),
        ("sha256:" + "3" * 64, NAMES[0]),
        ("", NAMES[0]),
    ],
)
def test_name_of_an_image_is_the_requested_one(requested, found):
    assert name_of(NAMES, requested) == found
    assert name_of((), requested) == ""
