"""Images: pulled, refused and removed by the kubelet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubelet.kit.pods import IMAGE, SLEEP, container, pod
from kubelet.kit.registries import PASSWORD, PORT, Closed, closed_registry, only_there
from kubelet.kit.settings import kubelet_settings
from kubelet.kit.workloads import Workloads
from kubelet.kit.world import World

from harness.kubectl import Manifest
from harness.run import wait_for
from noderuntime.cri.v1 import api_pb2 as pb
from story import cri

_LAYERS = "/var/lib/noderuntime/images/layers"


@pytest.fixture(scope="module")
def closed(world: World) -> Iterator[Closed]:
    """A registry that requires a password."""
    with closed_registry(world.cluster, world.node) as registry:
        yield registry


def _of(name: str, image: str, secret: str = "", **fields: object) -> Manifest:
    """Return a pod with an image of the registry and a pull secret."""
    manifest = pod(name, container("main", SLEEP, **fields))
    manifest["spec"]["containers"][0]["image"] = image
    if secret:
        manifest["spec"]["imagePullSecrets"] = [{"name": secret}]
    return manifest


def test_pull_secret_is_used_for_a_private_registry(workloads: Workloads, closed: Closed) -> None:
    image = closed.image("user-name:1")
    workloads.apply(closed.secret("right"), closed.secret("wrong", "not-" + PASSWORD))
    workloads.apply(_of("without", image), _of("wrong", image, "wrong"))
    for name, text in {"without": "requires a username and password", "wrong": "access denied"}.items():
        message = workloads.event(name, "Failed", image)
        assert text in message
        assert "\n" not in message
        assert PASSWORD not in message
    workloads.ready(_of("right", image, "right"))
    workloads.waiting("without", "ImagePullBackOff")


def test_image_pulled_with_a_secret_needs_the_secret(workloads: Workloads, closed: Closed) -> None:
    image = closed.image("user-number:1")
    workloads.apply(closed.secret("right"))
    workloads.ready(_of("owner", image, "right"))
    workloads.apply(_of("stranger", image))
    assert image in workloads.event("stranger", "Failed", image)
    workloads.ready(_of("friend", image, "right"))


def test_failed_pull_is_reported_with_its_reason(world: World, workloads: Workloads) -> None:
    away = f"{world.cluster.network.host_ip}:{PORT + 1}"
    only_there(world.node, away, f'server = "http://{away}"\n')
    cases = {
        "no-such-tag": ("registry.k8s.io/busybox:there-is-none", "not found"),
        "no-such-repository": ("registry.k8s.io/there/is/none:1", "not found"),
        "no-such-registry": (f"{away}/away:1", "refused"),
    }
    workloads.apply(*(_of(name, image) for name, (image, _) in cases.items()))
    for name, (image, text) in cases.items():
        message = workloads.event(name, "Failed", image)
        assert text in message
        assert "\n" not in message
        assert len(message) < 400, message
    for name, (_, text) in cases.items():
        assert text in workloads.waiting(name, "ImagePullBackOff")


def test_pull_policy_never_pulls_nothing(workloads: Workloads) -> None:
    workloads.apply(_of("never", "registry.k8s.io/web:1", imagePullPolicy="Never"))
    assert "not present" in workloads.waiting("never", "ErrImageNeverPull")


def test_image_can_be_referenced_by_its_digest(world: World, workloads: Workloads) -> None:
    workloads.ready(*(_of(name, IMAGE, imagePullPolicy="Always") for name in ("by-tag", "again")))
    by_digest = next(image.repo_digests[0] for image in _images(world) if IMAGE in image.repo_tags)
    workloads.ready(_of("by-digest", by_digest))
    reported = {workloads.container(name)["imageID"] for name in ("by-tag", "again", "by-digest")}
    assert reported == {by_digest}
    assert workloads.container("by-tag")["image"] == IMAGE


def test_image_garbage_collection_removes_all_of_an_image(world: World, workloads: Workloads) -> None:
    unused = "registry.k8s.io/pause:3.10"
    workloads.ready(_critical(_of("uses-busybox", IMAGE)))
    workloads.apply(_of("has-no-shell", unused))
    workloads.event("has-no-shell", "Failed", "failed")
    assert {unused, IMAGE} <= _tags(world)
    before = _layers(world)
    workloads.delete("pod/has-no-shell")
    full = {"imagefs.available": "99%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"}
    with kubelet_settings(world.cluster, world.node, evictionHard=full, imageMinimumGCAge="1ns"):
        wait_for("the unused image is removed", lambda: unused not in _tags(world), timeout=60)
        wait_for("its layer is removed", lambda: len(_layers(world)) == len(before) - 1, timeout=30)
    assert IMAGE in _tags(world)
    assert _layers(world) < before
    assert workloads.run_in("uses-busybox", "echo", "there") == "there\n"
    world.cluster.kubectl.wait_condition("node", world.node.name, "DiskPressure", status="False")


def _critical(manifest: Manifest) -> Manifest:
    """Give a pod a priority that keeps it from being evicted."""
    manifest["spec"]["priorityClassName"] = "system-node-critical"
    return manifest


def _images(world: World) -> list[pb.Image]:
    return cri.list_images(world.node, cri.NODERUNTIME)


def _tags(world: World) -> set[str]:
    return {tag for image in _images(world) for tag in image.repo_tags}


def _layers(world: World) -> set[str]:
    return set(world.node.exec("ls", _LAYERS).split())
