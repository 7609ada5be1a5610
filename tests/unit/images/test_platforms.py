"""The manifest of an index for each kind of machine."""

import hashlib
import json

import pytest

from noderuntime.core.errors import InvalidArgument, NotFound
from noderuntime.images import oci
from noderuntime.images.platforms import manifest_in

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Documents:
    """The documents of a registry."""

    def __init__(self):
        self.by_digest = {}
        self.asked = []

    def manifest(self, name, platform=None, *, there=True):
        return self._keep(MANIFEST, {"name": name}, platform, there=there)

    def index(self, *entries, platform=None):
        return self._keep(INDEX, {"manifests": list(entries)}, platform)

    def _keep(self, media_type, document, platform, *, there=True):
        raw = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if there:
            self.by_digest[digest] = raw
        entry = {"mediaType": media_type, "digest": digest, "size": len(raw)}
        return entry | ({"platform": platform} if platform else {})

    async def fetch(self, descriptor):
        self.asked.append(descriptor.digest)
        if descriptor.digest not in self.by_digest:
            raise NotFound("not found")
        return self.by_digest[descriptor.digest]

    async def chosen(self, *entries, machine="x86_64"):
        raw = json.dumps({"manifests": list(entries)}).encode()
        _, found = await manifest_in(raw, self.fetch, machine)
        return json.loads(found)["name"]


@pytest.fixture
def documents():
    return Documents()


def linux(architecture, variant=""):
    return {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})


EVERYTHING = [
    ("attestation", {"os": "unknown", "architecture": "unknown"}),
    ("windows", {"os": "windows", "architecture": "amd64"}),
    ("386", linux("386")),
    ("amd64 v3", linux("amd64", "v3")),
    ("amd64", linux("amd64")),
    ("armel", linux("arm", "v5")),
    ("arm v6", linux("arm", "v6")),
    ("arm v7", linux("arm", "v7")),
    ("arm64", linux("arm64", "v8")),
    ("s390x", linux("s390x")),
]


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "amd64"),
        ("aarch64", "arm64"),
        ("armv7l", "arm v7"),
        ("armv6l", "arm v6"),
        ("s390x", "s390x"),
    ],
)
async def test_each_machine_gets_its_platforms_manifest(documents, machine, name):
    entries = [documents.manifest(*entry) for entry in EVERYTHING]
    assert await documents.chosen(*entries, machine=machine) == name
    assert len(documents.asked) == 1


@pytest.mark.parametrize(
    ("machine", "offered", "name"),
    [
        ("x86_64", [linux("386")], "0"),
        ("x86_64", [linux("386"), linux("amd64", "v1")], "1"),
        ("x86_64", [linux("amd64"), linux("amd64", "v1")], "0"),
        ("x86_64", [linux("x86_64")], "0"),
        ("x86_64", [{"os": "Linux", "architecture": "AMD64"}], "0"),
        ("x86_64", [None], "0"),
        ("x86_64", [None, linux("386")], "1"),
        ("aarch64", [linux("arm64")], "0"),
        ("aarch64", [linux("arm64"), linux("arm64", "v8")], "0"),
        ("aarch64", [linux("arm", "v7"), linux("aarch64", "8")], "1"),
        ("aarch64", [linux("arm", "v6"), linux("arm")], "1"),
        ("aarch64", [linux("arm", "v7"), linux("arm", "v8")], "1"),
        ("armv7l", [linux("arm", "v8"), linux("arm", "v6"), linux("armhf")], "2"),
        ("armv6l", [linux("arm"), linux("armel")], "1"),
    ],
)
async def test_variants_are_matched_as_containerd_does(documents, machine, offered, name):
    entries = [documents.manifest(str(number), platform) for number, platform in enumerate(offered)]
    assert await documents.chosen(*entries, machine=machine) == name


@pytest.mark.parametrize(
    ("machine", "offered"),
    [
        ("x86_64", []),
        ("x86_64", [linux("amd64", "v2"), linux("arm64"), {"os": "freebsd", "architecture": "amd64"}]),
        ("aarch64", [linux("arm64", "v9"), linux("amd64")]),
        ("armv6l", [linux("arm", "v7")]),
        ("vax", [linux("amd64")]),
    ],
)
async def test_an_index_without_the_platform_is_not_found(documents, machine, offered):
    entries = [documents.manifest(str(number), platform) for number, platform in enumerate(offered)]
    with pytest.raises(NotFound, match="no manifest for this machine's platform"):
        await documents.chosen(*entries, machine=machine)
    assert not documents.asked


async def test_a_missing_manifest_is_skipped(documents):
    gone, kept = (
        documents.manifest("gone", linux("amd64"), there=False),
        documents.manifest("386", linux("386")),
    )
    assert await documents.chosen(gone, kept) == "386"


async def test_unknown_media_types_are_skipped(documents):
    other = documents.manifest("other", linux("amd64")) | {"mediaType": "application/vnd.example.sbom"}
    assert await documents.chosen(other, documents.manifest("386", linux("386"))) == "386"


async def test_a_nested_index_is_followed(documents):
    inner = documents.index(
        documents.manifest("arm", linux("arm64")), documents.manifest("deep", linux("amd64"))
    )
    empty = documents.index(documents.manifest("arm", linux("arm64")))
    assert await documents.chosen(documents.index(inner)) == "deep"
    assert await documents.chosen(empty, inner) == "deep"
    assert await documents.chosen(inner, documents.manifest("own", linux("amd64"))) == "own"
    named = documents.index(documents.manifest("named", linux("amd64")), platform=linux("amd64"))
    assert await documents.chosen(documents.manifest("386", linux("386")), named) == "named"


async def test_deeply_nested_indexes_are_rejected(documents):
    entry = documents.manifest("deep", linux("amd64"))
    for _ in range(3):
        entry = documents.index(entry)
    with pytest.raises(InvalidArgument, match="more than 3 levels of nested indexes"):
        await documents.chosen(entry)


async def test_an_index_of_missing_manifests_is_abandoned(documents):
    ghosts = [documents.manifest(str(number), linux("amd64"), there=False) for number in range(1000)]
    with pytest.raises(NotFound, match="no manifest for this machine"):
        await documents.chosen(*ghosts)
    assert len(documents.asked) == 16


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"manifests": [{"digest": "sha256:../x"}]}', b'{"manifests": 1}']
)
async def test_an_invalid_index_is_rejected(documents, raw):
    with pytest.raises(InvalidArgument, match="image index: "):
        await manifest_in(raw, documents.fetch)
    entry = documents.index(documents.manifest("x"))
    documents.by_digest[entry["digest"]] = raw
    with pytest.raises(InvalidArgument, match="image index: "):
        await documents.chosen(entry)


def test_an_index_has_at_most_ten_thousand_entries():
    entry = {"mediaType": MANIFEST, "digest": f"sha256:{'a' * 64}", "size": 1}
    assert oci.read(oci.Index, json.dumps({"manifests": [entry] * 10_000}).encode())
    with pytest.raises(InvalidArgument, match="at most 10000"):
        oci.read(oci.Index, json.dumps({"manifests": [entry] * 10_001}).encode())
