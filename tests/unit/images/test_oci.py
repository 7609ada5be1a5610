import hashlib
import json

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.images import oci
from noderuntime.images.base import ImageConfig

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def index(*platforms):
    manifests = [
        {"mediaType": MANIFEST, "digest": f"sha256:{number:064x}", "size": 1}
        | ({"platform": platform} if platform else {})
        for number, platform in enumerate(platforms)
    ]
    return oci.read(oci.Index, json.dumps({"manifests": manifests}).encode())


def linux(architecture, variant=None):
    return {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})


def preferred(index, machine):
    return [int(found.digest[-2:], 16) for found in oci.by_preference(index, machine)]


def test_the_machines_own_platform_comes_first():
    several = index(
        linux("arm64", "v8"),
        linux("386"),
        linux("amd64"),
        {"os": "windows", "architecture": "amd64"},
        {"os": "unknown", "architecture": "unknown"},
        None,
        linux("arm", "v7"),
    )
    assert preferred(several, "x86_64") == [2, 1, 5]
    assert preferred(several, "aarch64") == [0, 6, 5]
    assert preferred(several, "s390x") == [5]


def test_a_chain_id_covers_every_layer_below():
    two = f"sha256:{hashlib.sha256(f'{A} {B}'.encode()).hexdigest()}"
    three = f"sha256:{hashlib.sha256(f'{two} {C}'.encode()).hexdigest()}"
    assert [oci.chain_id(layers) for layers in ([], [A], [A, B], [A, B, C])] == ["", A, two, three]


def test_the_defaults_of_a_full_config():
    raw = {
        "architecture": "amd64",
        "config": {
            "Env": ["A=1"],
            "Entrypoint": ["/e"],
            "Cmd": ["c"],
            "WorkingDir": "/w",
            "User": "web",
            "StopSignal": "SIGINT",
            "Volumes": {"/data": {}},
            "Labels": {"unknown": "fields are ignored"},
        },
        "rootfs": {"type": "layers", "diff_ids": [A]},
    }
    config = oci.read(oci.Config, json.dumps(raw).encode())
    assert oci.container_defaults(config) == ImageConfig(
        ("A=1",), ("/e",), ("c",), "/w", "web", "SIGINT", ("/data",)
    )
    assert config.rootfs.diff_ids == [A]


NULLS = {"Env": None, "Entrypoint": None, "Cmd": None, "WorkingDir": None, "Volumes": None}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": None, "rootfs": None},
        {"config": NULLS, "rootfs": {"type": None, "diff_ids": None}},
    ],
)
def test_null_in_a_config_is_as_no_key(document):
    config = oci.read(oci.Config, json.dumps(document).encode())
    assert oci.container_defaults(config) == ImageConfig()
    assert config.rootfs.diff_ids == []


@pytest.mark.parametrize("raw", [b"{}", b'{"layers": null, "manifests": null}'])
def test_null_lists_of_a_manifest_and_an_index_are_empty(raw):
    assert oci.read(oci.Layers, raw).layers == []
    assert oci.read(oci.Index, raw).manifests == []


def test_null_in_a_descriptor_is_as_no_key():
    entry = {"mediaType": None, "digest": A, "size": None, "platform": {"os": None, "variant": None}}
    [found] = oci.read(oci.Index, json.dumps({"manifests": [entry]}).encode()).manifests
    assert (found.media_type, found.size, found.platform) == ("", 0, oci.Platform())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"config": {"Env": "A=1"}}',
        b'{"config": {"Env": [1]}}',
        b'{"config": {"User": "\\ud800"}}',
        b'{"rootfs": {"diff_ids": ["../../etc"]}}',
        b'{"rootfs": {"diff_ids": ["sha256:' + b"a" * 64 + b'\\n"]}}',
        json.dumps({"rootfs": {"diff_ids": [A] * 501}}).encode(),
        json.dumps({"config": {"Env": ["x"] * 10_001}}).encode(),
    ],
)
def test_an_invalid_config_fails_with_one_line(raw):
    with pytest.raises(InvalidArgument, match="image config: ") as caught:
        oci.read(oci.Config, raw)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_manifest_without_config_is_named():
    with pytest.raises(InvalidArgument, match="image manifest: config: Field required"):
        oci.read(oci.Manifest, b'{"layers": []}')
