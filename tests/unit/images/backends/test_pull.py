import asyncio
import os

import pytest
from pulling import INDEX, MANIFEST, digest_of, entry, tar_of

from noderuntime.core.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from noderuntime.images.base import ImageConfig
from noderuntime.images.credentials import Credentials
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS

NAME = "registry.test/app"
BIG = bytes(range(256)) * 4000


async def test_a_pulled_image_is_found_by_all_its_names(site):
    built = site.remote.image("1", {"a": b"lower"}, {"a": b"upper", "b": BIG}, config={"Cmd": ["run"]})
    assert await site.backend.pull(f"{NAME}:1") == built.id
    by_digest = f"{NAME}@{built.manifest.digest}"
    for text in (
        f"{NAME}:1",
        by_digest,
        built.id,
        built.id[7:],
        built.id[7:15],
        f"{NAME}:x@{built.manifest.digest}",
    ):
        found = site.backend.status(text)
        assert (found.id, found.chain_id) == (built.id, built.chain_id)
        assert (found.repo_tags, found.repo_digests) == ((f"{NAME}:1",), (by_digest,))
        assert found.config == ImageConfig(cmd=("run",))
    assert site.file(built, "a") == b"upper"
    assert site.backend.list_images() == [found]
    assert found.size > len(BIG)
    assert len(site.left()["layers"]) == 2
    assert set(site.left()["blobs/sha256"]) == {built.id[7:], built.manifest.digest[7:]}
    assert set(site.left()) == {"layers", "blobs/sha256"}, "nothing else is left"


async def test_a_second_pull_fetches_only_the_manifest(site):
    built = site.remote.image("1", {"a": b""})
    await site.backend.pull(f"{NAME}:1")
    await site.backend.pull(f"{NAME}:1")
    assert site.remote.asked["resolve"] == 2
    assert site.remote.asked[built.manifest.digest] == site.remote.asked[built.layers[0].digest] == 1


async def test_existing_layers_are_not_fetched(site):
    first = site.remote.image("1", {"base": BIG}, {"one": b""})
    second = site.remote.image("2", {"base": BIG}, {"two": b""})
    await site.backend.pull(f"{NAME}:1")
    await site.backend.pull(f"{NAME}:2")
    assert first.layers[0] == second.layers[0]
    assert site.remote.asked[first.layers[0].digest] == 1
    assert len(site.left()["layers"]) == 3


async def test_a_duplicate_layer_is_downloaded_once(site):
    built = site.remote.image("1", {"a": b""}, {"a": b""}, {"b": b""}, {"a": b""})
    await site.backend.pull(f"{NAME}:1")
    assert len(site.store.catalog.stack(built.chain_id)) == 4
    assert site.remote.sent == built.layers[0].size + built.layers[2].size
    assert set(site.left()) == {"layers", "blobs/sha256"}


async def test_an_index_resolves_to_this_platforms_manifest(site, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    amd = site.remote.image("amd", {"a": b"amd"})
    arm = site.remote.image("arm", {"a": b"arm"})
    missing = type(arm.manifest)(MANIFEST, digest_of(b"missing"), 7)
    index = site.remote.index("1", ("amd64", amd.manifest), ("arm64", missing), ("arm64", arm.manifest))
    assert await site.backend.pull(f"{NAME}:1") == arm.id
    assert site.backend.status(f"{NAME}:1").repo_digests == (f"{NAME}@{index.digest}",)
    assert {index.digest[7:], arm.manifest.digest[7:]} < set(site.left()["blobs/sha256"])
    site.remote.tags["nested"] = site.remote.add(INDEX, manifests=[entry(index)])
    assert await site.backend.pull(f"{NAME}:nested") == arm.id
    site.remote.index("none", ("s390x", amd.manifest))
    with pytest.raises(
        NotFound, match=rf"image {NAME}:none: the image has no manifest for this machine's platform"
    ):
        await site.backend.pull(f"{NAME}:none")


async def test_an_image_keeps_its_digest_when_its_tag_moves(site):
    old = site.remote.image("1", {"a": b"old"})
    await site.backend.pull(f"{NAME}:1")
    new = site.remote.image("1", {"a": b"new"})
    await site.backend.pull(f"{NAME}:1")
    assert site.backend.status(f"{NAME}:1").id == new.id
    assert site.backend.status(old.id).repo_tags == ()
    assert site.backend.status(old.id).repo_digests == (f"{NAME}@{old.manifest.digest}",)


async def test_an_image_of_two_registries_has_one_id(site):
    built = site.remote.image("1", {"a": b""})
    for name in (NAME, "other.test/copy"):
        assert await site.backend.pull(f"{name}:1") == built.id
    [image] = site.backend.list_images()
    assert image.repo_tags == ("other.test/copy:1", f"{NAME}:1")
    assert len(image.repo_digests) == 2


async def test_concurrent_pulls_of_an_image_share_the_work(site):
    built = site.remote.image("1", {"a": BIG}, {"b": b""})
    pulls = [site.backend.pull(f"{NAME}:1") for _ in range(5)]
    pulls.append(site.backend.pull(f"{NAME}@{built.manifest.digest}"))
    assert set(await asyncio.gather(*pulls)) == {built.id}
    assert [site.remote.asked[layer.digest] for layer in built.layers] == [1, 1]
    assert site.remote.asked["resolve"] == 2
    assert site.backend.counters.succeeded == 2


async def test_parallel_downloads_are_limited(site):
    for tag in "123":
        layers = [{f"{tag}-{number}": b""} for number in range(5)]
        built = site.remote.image(tag, *layers)
        for layer in built.layers:
            site.remote.gates[layer.digest] = asyncio.Event()
    one = asyncio.create_task(site.backend.pull(f"{NAME}:1"))
    while site.remote.at_once < 3:
        await asyncio.sleep(0)
    others = [asyncio.create_task(site.backend.pull(f"{NAME}:{tag}")) for tag in "23"]
    while site.remote.at_once < 6:
        await asyncio.sleep(0)
    for gate in site.remote.gates.values():
        gate.set()
    await asyncio.gather(one, *others)
    assert site.remote.most_at_once == 6


async def test_many_layers_use_few_descriptors(site):
    built = site.remote.image("1", *({"file": str(number).encode()} for number in range(300)))
    blob, most, before = site.remote.blob, 0, len(os.listdir("/proc/self/fd"))

    async def counted(*arguments):
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
        await blob(*arguments)

    site.remote.blob = counted
    assert await site.backend.pull(f"{NAME}:1") == built.id
    assert most < 60
    assert site.file(built, "file") == b"299"
    assert len(site.left()["layers"]) == 300


async def test_a_layer_is_unpacked_during_its_download(site):
    built = site.remote.image("1", {"a": b""})
    gate = site.remote.gates[built.layers[0].digest] = asyncio.Event()
    pull = asyncio.create_task(site.backend.pull(f"{NAME}:1"))
    await site.unpacker.begun.wait()
    assert not pull.done()
    gate.set()
    assert await pull == built.id


async def test_a_waiting_pull_continues_a_cancelled_pulls_layer(site):
    """The second pull continues the download of the first one, whose caller was cancelled."""
    first = site.remote.image("1", {"base": BIG}, {"one": b""})
    second = site.remote.image("2", {"base": BIG}, {"two": b""})
    base = first.layers[0].digest
    gate = site.remote.gates[base] = asyncio.Event()
    leaving = asyncio.create_task(site.backend.pull(f"{NAME}:1"))
    await site.remote.begin(base).wait()
    staying = asyncio.create_task(site.backend.pull(f"{NAME}:2"))
    await site.remote.begin(second.layers[1].digest).wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    assert await staying == second.id
    assert site.remote.asked[base] == 1
    assert site.backend.counters.failed == {"Cancelled": 1}


async def test_a_waiting_pull_retries_a_failed_pulls_layer(site):
    first = site.remote.image("1", {"base": BIG}, {"one": b""})
    second = site.remote.image("2", {"base": BIG}, {"two": b""})
    base = first.layers[0].digest
    gate = site.remote.gates[base] = asyncio.Event()
    site.remote.breaks[base] = [(0, PermissionDenied("not you"))]
    failing = asyncio.create_task(site.backend.pull(f"{NAME}:1"))
    await site.remote.begin(base).wait()
    working = asyncio.create_task(site.backend.pull(f"{NAME}:2"))
    await site.remote.begin(second.layers[1].digest).wait()
    gate.set()
    with pytest.raises(PermissionDenied, match=f"image {NAME}:1: not you"):
        await failing
    assert await working == second.id


async def test_a_pull_without_callers_ends_and_keeps_its_bytes(site):
    built = site.remote.image("1", {"a": BIG}, {"b": BIG + b"b"})
    for layer in built.layers:
        site.remote.gates[layer.digest] = asyncio.Event()
    pulls = [asyncio.create_task(site.backend.pull(f"{NAME}:1")) for _ in range(2)]
    for layer in built.layers:
        await site.remote.begin(layer.digest).wait()
    while site.remote.sent < sum(layer.size for layer in built.layers):
        await asyncio.sleep(0)
    pulls[0].cancel()
    await asyncio.wait([pulls[0]])
    assert site.remote.at_once == 2, "another caller still waits"
    pulls[1].cancel()
    await asyncio.wait([pulls[1]])
    assert site.remote.at_once == 0
    assert site.backend.pulls() == []
    assert len(site.left()["partial"]) == 2
    assert "layers" not in site.left()
    site.remote.gates.clear()
    assert await site.backend.pull(f"{NAME}:1") == built.id
    assert set(site.left()) == {"layers", "blobs/sha256"}


async def test_an_interrupted_download_is_resumed_by_the_next_pull(site):
    content = {f"{number}": BIG[number:] for number in range(40)}
    built = site.remote.image("1", content)
    [layer] = built.layers
    site.remote.breaks[layer.digest] = [(layer.size - 10, Unavailable("reset"))]
    with pytest.raises(Unavailable, match=f"image {NAME}:1: reset"):
        await site.backend.pull(f"{NAME}:1")
    [held] = [path.stat().st_size for path in (site.root / "partial").iterdir()]
    assert "layers" not in site.left()
    await site.again()
    assert await site.backend.pull(f"{NAME}:1") == built.id
    assert site.remote.sent == layer.size - 10 + layer.size - held
    assert "partial" not in site.left()


@pytest.mark.parametrize("garbage", [b"\0" * 50, b"\x1f\x8b garbage"], ids=["zeros", "gzip"])
async def test_a_corrupt_partial_layer_is_downloaded_again(site, garbage):
    built = site.remote.image("1", {"a": BIG})
    (site.root / "partial" / built.layers[0].digest[7:]).write_bytes(garbage)
    assert await site.backend.pull(f"{NAME}:1") == built.id
    assert site.file(built, "a") == BIG
    assert set(site.left()) == {"layers", "blobs/sha256"}


@pytest.mark.parametrize("place", ["layer", "second layer"])
async def test_corrupt_content_of_a_registry_is_not_kept(site, place):
    built = site.remote.image("1", {"a": BIG}, {"b": BIG})
    site.remote.lies[built.layers[place != "layer"].digest] = (
        site.remote.content[built.layers[1].digest][:-1] + b"x"
    )
    with pytest.raises(DataLoss, match=f"image {NAME}:1: registry.test: the content does not have") as caught:
        await site.backend.pull(f"{NAME}:1")
    assert "\n" not in str(caught.value)
    assert site.left() == {}
    assert site.backend.list_images() == []
    assert site.backend.counters.failed == {"DataLoss": 1}


async def test_a_layer_with_another_diff_id_is_rejected(site):
    other = digest_of(b"something else")
    site.remote.image("1", {"a": b""}, diff_ids=[other])
    with pytest.raises(
        DataLoss, match=rf"image {NAME}:1: layer sha256:\w+: its diff ID is .*, the config has {other}"
    ):
        await site.backend.pull(f"{NAME}:1")
    assert site.left() == {}


async def test_a_layer_that_is_not_an_archive_is_named(site):
    built = site.remote.image("1", b"no tar at all")
    with pytest.raises(
        InvalidArgument, match=f"image {NAME}:1: layer {built.layers[0].digest}: the layer is"
    ):
        await site.backend.pull(f"{NAME}:1")
    assert site.left() == {}


async def test_documents_that_do_not_match_are_rejected(site):
    remote = site.remote
    built = remote.image("1", {"a": b""})
    config = remote.keep("application/vnd.oci.empty.v1+json", b"{}")
    remote.tags["artifact"] = remote.add(MANIFEST, config=entry(config), layers=[entry(built.layers[0])])
    with pytest.raises(
        InvalidArgument, match="not a container image: 1 layers in its manifest, 0 in its config"
    ):
        await site.backend.pull(f"{NAME}:artifact")
    remote.image("odd", {"a": b""}, media_type="application/vnd.oci.image.layer.v1.squashfs")
    with pytest.raises(
        InvalidArgument, match=f"image {NAME}:odd: .* is not the media type of an image layer"
    ):
        await site.backend.pull(f"{NAME}:odd")
    remote.tags["bad"] = remote.keep(MANIFEST, b'{"config": []}')
    with pytest.raises(InvalidArgument, match=f"image {NAME}:bad: image manifest: config: "):
        await site.backend.pull(f"{NAME}:bad")
    assert remote.sent == 0, "no layer was requested"
    assert site.left() == {}


async def test_an_image_larger_than_the_disk_is_not_downloaded(site):
    built = site.remote.image("1", {"a": b""})
    huge = entry(built.layers[0]) | {"size": 1 << 62}
    config = site.remote.keep("x", site.remote.content[built.id])
    site.remote.tags["huge"] = site.remote.add(MANIFEST, config=entry(config), layers=[huge])
    with pytest.raises(ResourceExhausted, match=rf"needs more than {1 << 62} bytes, .* available"):
        await site.backend.pull(f"{NAME}:huge")
    assert site.remote.sent == 0


async def test_the_size_of_all_layers_of_an_image_is_limited(site):
    built = site.remote.image("1", {"a": BIG}, {"b": BIG})
    sizes = len(tar_of({"a": BIG})), len(tar_of({"b": BIG}))
    site.backend.configure(["docker.io"], [], DEFAULT_LIMITS._replace(size=sum(sizes) - 1))
    with pytest.raises(ResourceExhausted, match=f"its layers exceed the limit of {sum(sizes) - 1} bytes"):
        await site.backend.pull(f"{NAME}:1")
    assert site.left() == {}
    site.backend.configure(["docker.io"], [], DEFAULT_LIMITS._replace(size=sum(sizes)))
    assert await site.backend.pull(f"{NAME}:1") == built.id


async def test_a_pull_that_leaves_too_little_free_disk_is_refused(site):
    site.remote.image("1", {"a": b""})
    site.backend.configure(["docker.io"], [], DEFAULT_LIMITS._replace(free_disk=1 << 62))
    with pytest.raises(ResourceExhausted, match=rf"of which {1 << 62} stay free .*, .* available"):
        await site.backend.pull(f"{NAME}:1")
    assert site.remote.sent == 0


async def test_a_full_disk_removes_partial_pulls_and_keeps_images(site):
    kept = site.remote.image("kept", {"a": b"kept"})
    await site.backend.pull(f"{NAME}:kept")
    stale = site.root / "partial" / digest_of(b"another pull")[7:]
    stale.write_bytes(b"begun")
    built = site.remote.image("1", {"a": BIG})
    site.unpacker.fail = ResourceExhausted("no room for 'a': No space left on device")
    with pytest.raises(ResourceExhausted, match=f"image {NAME}:1: layer .*: no room for 'a'"):
        await site.backend.pull(f"{NAME}:1")
    assert not stale.exists()
    assert site.file(kept, "a") == b"kept"
    site.unpacker.fail = None
    assert await site.backend.pull(f"{NAME}:1") == built.id


async def test_a_pull_reports_progress_and_counters(site):
    built = site.remote.image("1", {"a": BIG}, {"b": b""})
    seen = []

    def watch(progress):
        seen.append([(layer.stage, layer.received) for layer in progress.layers])

    await site.backend.pull(f"{NAME}:1", watch=watch)
    assert seen[0] == [("waiting", 0)] * 2
    assert ("downloading", 0) not in seen[-1]
    assert seen[-1] == [("done", layer.size) for layer in built.layers]
    counters = site.backend.counters
    assert (counters.succeeded, counters.received) == (1, sum(layer.size for layer in built.layers))
    assert counters.seconds > 0


async def test_credentials_are_for_the_first_searched_registry_only(site):
    asked = []

    async def resolve(reference, credentials=None):
        asked.append((str(reference), credentials))
        if reference.registry != "two.test":
            raise PermissionDenied(f"{reference.registry} denies")
        return built.manifest

    built = site.remote.image("1", {"a": b""})
    site.remote.resolve = resolve
    await site.again(search=("one.test", "two.test"))
    given = Credentials("me", "secret")
    assert await site.backend.pull("team/app:1", given) == built.id
    assert asked == [("one.test/team/app:1", given), ("two.test/team/app:1", None)]
    assert site.backend.status("team/app:1").repo_tags == ("two.test/team/app:1",)
    await site.again(search=("one.test", "three.test"))
    with pytest.raises(PermissionDenied, match=r"one.test denies; .*three.test denies"):
        await site.backend.pull("team/app:2")
