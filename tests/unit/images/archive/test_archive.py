import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pulling import CONFIG, INDEX, MANIFEST, FakeRemote, entry, tar_of

from noderuntime.core.errors import DataLoss, InvalidArgument, NoderuntimeError, NotFound, ResourceExhausted
from noderuntime.images.archive.members import open_files
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS

NAME = "registry.test/app:1"


def layout_of(remote, **names):
    """Return the files of an OCI layout with all content of the fake registry, under these names."""
    files = {f"blobs/sha256/{digest[7:]}": raw for digest, raw in remote.content.items()}
    named = [entry(remote.tags[tag]) | {"annotations": annotations} for tag, annotations in names.items()]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": named}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **files,
    }


def saved(*images, compress=bytes):
    """Return the files of an old ``docker save`` archive; each image is (tags, layers)."""
    files, manifest = {}, []
    for tags, layers in images:
        tars = [tar_of(layer) for layer in layers]
        diff_ids = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in tars]
        config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        paths = [f"{digest[7:]}/layer.tar" for digest in diff_ids]
        files |= {name: config, **dict(zip(paths, map(compress, tars), strict=True))}
        manifest.append({"Config": name, "RepoTags": tags, "Layers": paths})
    return {"manifest.json": json.dumps(manifest).encode(), **files}


def write(path, files, form="tar"):
    if form == "directory":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    else:
        path.write_bytes(gzip.compress(tar_of(files)) if form == "gzip" else tar_of(files))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archive"


@pytest.mark.parametrize("form", ["tar", "gzip", "directory"])
async def test_an_oci_layout_loads_in_every_form(site, path, form):
    remote = FakeRemote()
    built = remote.image("1", {"a": b"lower"}, {"a": b"upper"}, config={"Cmd": ["x"]})
    remote.index("index", ("amd64", built.manifest), ("arm64", built.manifest))
    names = {"index": {"io.containerd.image.name": NAME}, "1": {"org.opencontainers.image.ref.name": "1"}}
    write(path, layout_of(remote, **names), form)
    assert await site.backend.load(path) == [built.id, built.id]
    [image] = site.backend.list_images()
    assert (image.repo_tags, image.repo_digests, image.config.cmd) == ((NAME,), (), ("x",))
    assert site.file(built, "a") == b"upper"
    assert set(site.left()) == {"layers", "blobs/sha256"}
    await site.again()
    assert site.backend.list_images() == [image]


async def test_a_full_name_in_the_ref_name_annotation_is_used(site, path):
    remote = FakeRemote()
    remote.image("1", {"a": b""})
    write(path, layout_of(remote, **{"1": {"org.opencontainers.image.ref.name": "registry.test/x"}}))
    await site.backend.load(path)
    assert site.backend.list_images()[0].repo_tags == ("registry.test/x:latest",)


async def test_images_for_other_platforms_are_skipped(site, path):
    remote = FakeRemote()
    built = remote.image("1", {"a": b""})
    files = layout_of(remote, **{"1": {"io.containerd.image.name": NAME}})
    index = json.loads(files["index.json"])
    index["manifests"][0]["platform"] = {"os": "linux", "architecture": "vax"}
    files["index.json"] = json.dumps(index).encode()
    with pytest.raises(InvalidArgument, match=f"{path}: the archive contains no image for this machine"):
        await site.backend.load(write(path, files))
    index["manifests"].append(entry(built.manifest))
    files["index.json"] = json.dumps(index).encode()
    assert await site.backend.load(write(path, files)) == [built.id]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_old_docker_save_archives_load(site, path, compress):
    base, top = {"etc/os": b"base"}, {"etc/os": b"top"}
    files = saved((["app:1", "registry.test/app:2"], [base, top]), (None, [base]), compress=compress)
    first, second = await site.backend.load(write(path, files))
    image = site.backend.status("app:1")
    assert (image.id, image.repo_tags) == (first, ("docker.io/library/app:1", "registry.test/app:2"))
    assert site.backend.status(second).repo_tags == ()
    assert len(site.left()["layers"]) == 2, "they share the base"
    await site.again()
    assert {one.id for one in site.backend.list_images()} == {first, second}
    await site.backend.remove(first)
    await site.backend.remove(second)
    assert site.left() == {}


@pytest.mark.parametrize("layers", [{}, {"Layers": None}, {"Layers": []}], ids=str)
@pytest.mark.parametrize("rootfs", [{}, {"rootfs": None}, {"rootfs": {"diff_ids": None}}], ids=str)
async def test_a_saved_image_without_layers_loads(site, path, layers, rootfs):
    manifest = [{"Config": "config.json", "RepoTags": ["app:1"], **layers}]
    config = {"os": "linux", "config": {"Cmd": ["x"]}, **rootfs}
    files = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    [image_id] = await site.backend.load(write(path, files))
    image = site.backend.status("app:1")
    assert (image.id, image.chain_id, image.config.cmd) == (image_id, "", ("x",))


@pytest.mark.parametrize("layers", [{}, {"layers": None}], ids=str)
async def test_a_layout_with_an_image_without_layers_loads(site, path, layers):
    remote = FakeRemote()
    config = remote.keep(CONFIG, json.dumps({"os": "linux", "rootfs": {"diff_ids": None}}).encode())
    remote.tags["1"] = remote.add(MANIFEST, config=entry(config), **layers)
    files = layout_of(remote, **{"1": {"io.containerd.image.name": NAME}})
    assert await site.backend.load(write(path, files)) == [config.digest]
    assert site.backend.status(NAME).chain_id == ""


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
async def test_a_duplicate_layer_can_be_a_link(site, path, kind):
    files = saved((["app:1"], [{"a": b""}, {"a": b""}]))
    [layer] = [name for name in files if name.endswith("layer.tar")]
    manifest = json.loads(files["manifest.json"])
    manifest[0]["Layers"][1] = "twin/layer.tar"
    files["manifest.json"] = json.dumps(manifest).encode()
    buffer = io.BytesIO(tar_of(files))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        link = tarfile.TarInfo("./twin/layer.tar")
        link.type, link.linkname = kind, f"../{layer}" if kind == tarfile.SYMTYPE else layer
        archive.addfile(link)
    path.write_bytes(buffer.getvalue())
    [image_id] = await site.backend.load(path)
    assert len(site.store.catalog.chain(site.backend.status(image_id).chain_id)) == 2


async def test_an_archive_loads_from_a_pipe(site, path):
    os.mkfifo(path)
    content = tar_of(saved((["app:1"], [{"a": b"x" * 200_000}])))
    writer = threading.Thread(target=path.write_bytes, args=[content])
    writer.start()
    assert len(await site.backend.load(path)) == 1
    writer.join()


async def test_an_archived_and_a_pulled_image_are_the_same(site, path):
    built = site.remote.image("1", {"a": b""})
    await site.backend.pull(NAME)
    write(path, layout_of(site.remote, **{"1": {"io.containerd.image.name": "registry.test/loaded:1"}}))
    assert await site.backend.load(path) == [built.id]
    [image] = site.backend.list_images()
    assert image.repo_tags == (NAME, "registry.test/loaded:1")
    assert image.repo_digests == (f"registry.test/app@{built.manifest.digest}",)


def replaced(files, name, content):
    return {key: content if name in key else value for key, value in files.items()}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            lambda files: {"hello": b"world"},
            InvalidArgument,
            "not an image archive: it contains neither index.json nor",
        ),
        (
            lambda files: replaced(files, "manifest.json", b"[{}]"),
            InvalidArgument,
            "manifest.json: 0.Config: Field required",
        ),
        (
            lambda files: replaced(files, "manifest.json", b"\xff"),
            InvalidArgument,
            "manifest.json: Invalid JSON",
        ),
        (lambda files: {**files, "index.json": b"{}"}, InvalidArgument, "contains no image"),
        (
            lambda files: {**files, "index.json": b" " * (9 << 20)},
            ResourceExhausted,
            "9437184 bytes, the limit is 8388608",
        ),
        (
            lambda files: {key: files[key] for key in files if "layer" not in key},
            NotFound,
            "has no '.*layer.tar'",
        ),
        (lambda files: replaced(files, "layer.tar", b"no tar"), DataLoss, "its diff ID is|is damaged"),
        (
            lambda files: replaced(files, "manifest.json", saved(([".."], []))["manifest.json"]),
            NotFound,
            "has no",
        ),
    ],
)
async def test_a_bad_archive_fails_with_one_clear_error(site, path, change, error, words):
    files = change(saved((["app:1"], [{"a": b""}])))
    with pytest.raises((error, InvalidArgument), match=words) as caught:
        await site.backend.load(write(path, files))
    assert "\n" not in str(caught.value)
    assert site.left() == {}
    assert site.backend.list_images() == []


async def test_a_blob_with_a_wrong_digest_is_rejected(site, path):
    remote = FakeRemote()
    built = remote.image("1", {"a": b"x" * 10_000})
    files = layout_of(remote, **{"1": {"io.containerd.image.name": NAME}})
    layer = f"blobs/sha256/{built.layers[0].digest[7:]}"
    for content, words in (
        (files[layer][:-1], "has .* bytes, expected"),
        (files[layer][:-1] + b"x", "layer .*|has the digest sha256:"),
    ):
        with pytest.raises((DataLoss, InvalidArgument), match=rf"image {NAME}: .*{words}"):
            await site.backend.load(write(path, files | {layer: content}))
    config = f"blobs/sha256/{built.id[7:]}"
    with pytest.raises(DataLoss, match=f"image {NAME}: the archive's {built.id} has the digest sha256:"):
        await site.backend.load(write(path, files | {config: files[config][:-1] + b" "}))
    assert site.left() == {}


async def test_a_path_that_is_not_an_archive_is_rejected(site, path):
    with pytest.raises(NotFound, match=f"{path} does not exist"):
        await site.backend.load(path)
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(InvalidArgument, match=f"{path}: .*not a tar archive"):
        await site.backend.load(path)


async def test_symlinks_are_confined_to_the_archive(site, path, tmp_path):
    (tmp_path / "secret").write_bytes(b"[]")
    path.mkdir()
    (path / "manifest.json").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidArgument, match="not an image archive"):
        await site.backend.load(path)
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")
    with pytest.raises(InvalidArgument, match=r"the archive's 'manifest.json' is not a file"):
        await site.backend.load(path)


async def test_a_decompression_bomb_is_rejected(site, path):
    site.backend.configure(["docker.io"], [], DEFAULT_LIMITS._replace(size=1 << 20))
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(ResourceExhausted, match="exceeds the limit of 1048576 bytes"):
        await site.backend.load(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damaged_tar_loads_or_fails_with_a_clear_error(tmp_path, data):
    raw = bytearray(tar_of(saved((["app:1"], [{"a": b"content"}]))))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "archive"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with suppress(NoderuntimeError):
        open_files(path, tmp_path, DEFAULT_LIMITS).close()
