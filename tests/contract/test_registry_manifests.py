"""A registry with invalid manifests: responses to HEAD, and manifests that do not match them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from registries import faults
from registries.content import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, digest
from registries.scene import Scene, refused, scene_of

from noderuntime.core.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from noderuntime.images.reference import parse
from noderuntime.images.remote import Descriptor

MANIFESTS = "GET /v2/team/app/manifests/"
HEADS = "HEAD /v2/team/app/manifests/"


@pytest.fixture
async def scene(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    async with scene_of(caplog) as scene:
        yield scene


SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
TYPED = {"Content_Type": OCI_MANIFEST}
BOTH = json.dumps({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).encode()
TAGS = [
    ("a page", faults.HTML, DataLoss, "sent 'text/html' instead of a manifest"),
    (
        "a page that says it is JSON",
        faults.answers(200, b"<html>", Content_Type="application/json"),
        DataLoss,
        "is not valid",
    ),
    ("nothing", faults.answers(200, b"", **TYPED), DataLoss, "is not valid"),
    ("deep nesting", faults.answers(200, b"[" * 100_000, **TYPED), DataLoss, "is not valid"),
    ("a crowd", faults.answers(200, b"[]," * faults.MIB, **TYPED), ResourceExhausted, "has too many values"),
    ("a list", faults.answers(200, b"[]", **TYPED), DataLoss, "is not valid"),
    ("two in one", faults.answers(200, BOTH, **TYPED), DataLoss, "has keys of both"),
    (
        "the other of two in one",
        faults.answers(200, BOTH, Content_Type=OCI_INDEX),
        DataLoss,
        "has keys of both",
    ),
    (
        "another type",
        faults.answers(200, b'{"mediaType": "%s"}' % OCI_INDEX.encode(), **TYPED),
        DataLoss,
        "was sent as",
    ),
    (
        "a type of its own",
        faults.answers(200, b"{}", Content_Type="application/x-evil"),
        DataLoss,
        "'application/x-evil'",
    ),
    ("no type", faults.answers(200, b"{}"), InvalidArgument, "type '' is not supported"),
    ("schema 1", faults.answers(200, b"{}", Content_Type=SCHEMA_1), InvalidArgument, "Docker.s schema 1"),
    (
        "too much",
        faults.answers(200, b"{" + b" " * 5 * faults.MIB, **TYPED),
        ResourceExhausted,
        "sent more than 4194304 bytes",
    ),
    ("without end", faults.endless(b" "), ResourceExhausted, "sent more than 4194304 bytes"),
    ("a trickle", faults.trickles(faults.HEAD_OK + b"\r\n"), Unavailable, "takes longer than"),
    ("a bomb", faults.gzipped(b"[" * faults.MIB, **TYPED), DataLoss, "sent an encoded body"),
    (
        "half of it",
        faults.answers(200, b"{}", Content_Length=9, **TYPED),
        Unavailable,
        "timed out|takes longer than",
    ),
    ("garbage", faults.sends(b"\0" * 99), Unavailable, "is not valid HTTP"),
    (
        "a missing tag",
        faults.answers(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'),
        NotFound,
        "not found",
    ),
]


@pytest.mark.parametrize(**faults.cases(TAGS))
async def test_a_tag_without_a_valid_manifest_fails(scene, behaviour, kind, words):
    scene.registry.on(MANIFESTS, behaviour)
    scene.registry.on(HEADS, faults.answers(200))
    await refused(scene.client().resolve(scene.reference), kind, words)


INVALID_HEADS = [
    ("a page", faults.HTML, DataLoss, "sent 'text/html' instead of a manifest"),
    ("schema 1", faults.answers(200, Content_Type=SCHEMA_1), InvalidArgument, "Docker.s schema 1"),
    ("a bomb", faults.gzipped(b"", **TYPED), DataLoss, "sent an encoded body"),
    ("no answer", faults.stalls(), Unavailable, "timed out"),
    ("a hang-up", faults.sends(b""), Unavailable, "the connection was interrupted"),
    ("a missing tag", faults.answers(404), NotFound, r"not found \(404\)$"),
    ("a refusal", faults.answers(403), PermissionDenied, r"access denied \(403\)$"),
]


@pytest.mark.parametrize(**faults.cases(INVALID_HEADS))
async def test_a_tag_with_an_invalid_head_response_fails(scene, behaviour, kind, words):
    scene.registry.on(HEADS, behaviour)
    await refused(scene.client().resolve(scene.reference), kind, words)


@pytest.mark.parametrize("named", ["", "sha256:../../../../etc", f"sha256:{'A' * 64}", f"md5:{'0' * 32}"])
async def test_a_head_without_a_digest_falls_back_to_get(scene, named):
    scene.registry.on(HEADS, faults.answers(200, b"x", Docker_Content_Digest=named, **TYPED))
    assert await scene.client().resolve(scene.reference) == replace(
        scene.manifest, data=scene.registry.content.manifests[scene.manifest.digest][1]
    )


@pytest.mark.parametrize("status", [405, 501])
async def test_a_registry_without_head_is_asked_by_get(scene, status):
    scene.registry.on(HEADS, faults.answers(status))
    found = await scene.client().resolve(scene.reference)
    assert (found.digest, found.size) == (scene.manifest.digest, scene.manifest.size)
    assert [one.method for one in scene.registry.asked] == ["HEAD", "GET"]


async def test_another_digest_than_requested_is_rejected(scene):
    other = scene.registry.content.image("other", (10,))
    scene.registry.on(
        "(HEAD|GET) /v2/team/app/manifests/",
        faults.answers(200, b"{}", Docker_Content_Digest=other.digest, **TYPED),
    )
    reference = parse(f"{scene.registry.authority}/team/app@{scene.manifest.digest}")
    await refused(scene.client().resolve(reference), DataLoss, "another digest than requested")


async def test_a_manifest_above_the_limit_is_not_fetched(scene):
    scene.registry.on(
        HEADS, faults.answers(200, Content_Length=4 << 20 | 1, Docker_Content_Digest=digest(b""), **TYPED)
    )
    client = scene.client()
    descriptor = await client.resolve(scene.reference)
    await refused(
        client.manifest(scene.reference, descriptor), ResourceExhausted, "4194305 bytes, the limit is 4194304"
    )
    assert not scene.registry.seen("GET")


async def test_a_config_above_the_limit_is_not_fetched(scene):
    descriptor = replace(scene.config, size=8 << 20 | 1)
    await refused(
        scene.client().document(scene.reference, descriptor),
        ResourceExhausted,
        "8388609 bytes, the limit is 8388608",
    )
    assert not scene.registry.asked


async def test_a_manifest_of_another_type_is_rejected(scene):
    client = scene.client()
    raw = scene.registry.content.manifests[scene.manifest.digest][1]
    untyped = json.dumps({"schemaVersion": 2, "layers": []}).encode()
    cases = [
        (
            replace(scene.manifest, media_type=DOCKER_LIST),
            DataLoss,
            "instead of application/vnd.docker.distribution.manifest.list",
        ),
        (replace(scene.manifest, media_type="text/x"), DataLoss, "instead of text/x"),
        (
            Descriptor(OCI_INDEX, digest(raw), len(raw), raw),
            DataLoss,
            "of type .* was sent as application/vnd.oci.image.index",
        ),
        (
            Descriptor(OCI_INDEX, digest(untyped), len(untyped), untyped),
            DataLoss,
            "has keys of both",
        ),
        (Descriptor("text/x", digest(b"{}"), 2, b"{}"), InvalidArgument, "of type 'text/x' is not supported"),
    ]
    for descriptor, kind, words in cases:
        await refused(client.manifest(scene.reference, descriptor), kind, words)


async def test_embedded_content_is_verified_by_its_digest(scene):
    raw = scene.registry.content.manifests[scene.manifest.digest][1]
    client = scene.client()
    assert await client.manifest(scene.reference, replace(scene.manifest, data=raw)) == raw
    assert not scene.registry.asked
    assert await client.manifest(scene.reference, replace(scene.manifest, data=raw[:-1] + b" ")) == raw
    assert len(scene.registry.asked) == 1


SENT = [
    (
        "another digest",
        faults.answers(200, b"{}" + b" " * 298, **TYPED),
        DataLoss,
        "does not have the digest sha256:",
    ),
    ("another size", faults.answers(200, b"{}", **TYPED), DataLoss, "announced 2 bytes, expected 300"),
    ("no end", faults.endless(b"x"), DataLoss, "sent more than"),
    ("a page", faults.HTML, DataLoss, "sent 'text/html' instead of"),
    ("a bomb", faults.gzipped(b"[" * faults.MIB, **TYPED), DataLoss, "sent an encoded body"),
    ("silence", faults.stalls(faults.HEAD_OK + b"\r\n{"), Unavailable, "sent nothing for 0.4 s"),
]


@pytest.mark.parametrize(**faults.cases(SENT))
async def test_an_invalid_manifest_is_rejected(scene, behaviour, kind, words):
    scene.registry.on(MANIFESTS, behaviour)
    descriptor = replace(scene.manifest, size=300)
    await refused(scene.client().manifest(scene.reference, descriptor), kind, words)
