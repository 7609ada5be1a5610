"""Upgrades of a node with pods: a bad version, its rollback by helm, a good version."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conftest import World
from harness.run import wait_for
from harness.versions import EXITS, Edits, other_image
from story import cri, steps
from story.manifests import web_pod

GOOD, BAD = "1" * 16, "2" * 16
PODS = {"ordinary": None, "runc": "runc", "gvisor": "gvisor"}
_COUNT = "i=0; while sleep 0.2; do i=$((i+1)); echo $i; done"


@pytest.fixture(scope="module")
def pods(world: World) -> dict[str, str | None]:
    """Web pods of every kind and one counting pod per handler, all Ready."""
    steps.install(world.cluster, world.image)
    steps.start_pods(world.cluster, PODS)
    for handler in steps.HANDLERS:
        world.cluster.kubectl.apply(web_pod(f"count-{handler}", handler, script=_COUNT))
        world.cluster.kubectl.wait_pod_ready(f"count-{handler}")
    return {**PODS, **{f"count-{handler}": handler for handler in steps.HANDLERS}}


@contextmanager
def node_watched(world: World) -> Iterator[list[str]]:
    """Observe the node's condition Ready; yield the messages of the times when it is not True."""
    messages: list[str] = []
    ended = threading.Event()

    def observe() -> None:
        while not ended.wait(0.5):
            conditions = world.cluster.kubectl.get("node", world.node.name)["status"]["conditions"]
            messages.extend(
                one["message"] for one in conditions if one["type"] == "Ready" and one["status"] != "True"
            )

    thread = threading.Thread(target=observe)
    thread.start()
    try:
        yield messages
    finally:
        ended.set()
        thread.join()


def variant(world: World, digest: str, edits: Edits) -> str:
    """Push an image with another version and return it."""
    image = f"{world.image.rpartition(':')[0]}:v{digest}"
    other_image(world.image, image, digest, edits)
    return image


def wait_instance(world: World, **expected: object) -> dict[str, Any]:
    """Wait until fields of the instance's status have these values."""

    def probe() -> dict[str, Any] | None:
        status = world.cluster.kubectl.get("noderuntimeinstance", world.node.name).get("status") or {}
        conditions: list[dict[str, Any]] = status.get("conditions", [])
        ready = next((one for one in conditions if one["type"] == "Ready"), {})
        found = {**status, "reason": ready.get("reason"), "message": ready.get("message")}
        return found if all(found.get(key) == value for key, value in expected.items()) else None

    return wait_for(f"{expected}", probe, timeout=200, every=1)


def check_untouched(world: World, before: dict[str, steps.Identity]) -> None:
    """Check that all pods are the same and reachable, and that no line of a log is missing."""
    assert {name: steps.identity(world.cluster, name) for name in before} == before
    steps.check_connections(world.cluster, world.node, list(PODS))
    for handler in steps.HANDLERS:
        lines = [int(line) for line in world.cluster.kubectl("logs", f"count-{handler}").split()]
        assert lines == list(range(1, len(lines) + 1))


def identities(world: World, pods: dict[str, str | None]) -> dict[str, steps.Identity]:
    return {name: steps.identity(world.cluster, name) for name in pods}


def test_bad_version_rolls_itself_back_and_the_node_stays_ready(
    world: World, pods: dict[str, str | None]
) -> None:
    before = identities(world, pods)
    serving = world.cluster.kubectl.get("noderuntimeinstance", world.node.name)["status"]["bundleDigest"]
    image = variant(world, BAD, EXITS)
    with cri.watched(world.node, cri.NODERUNTIME) as without_socket, node_watched(world) as not_ready:
        steps.upgrade_chart(world.cluster, image)
        status = wait_instance(world, reason="UpgradeRolledBack")
        time.sleep(10)  # a kubelet that lost its runtime would say so in its next status
    print(f"bad version: {without_socket():.2f} s without a socket")
    assert "the ledger is upside down" in status["message"]
    assert (status["bundleDigest"], status["phase"]) == (serving, "Degraded")
    assert {handler["state"] for handler in status["handlers"]} == {"Ready"}
    assert not_ready == []
    check_untouched(world, before)


def test_helm_rollback_after_a_bad_version_ends_ready(world: World, pods: dict[str, str | None]) -> None:
    before = identities(world, pods)
    steps.roll_back_chart(world.cluster)
    wait_instance(world, phase="Ready")
    steps.wait_ready(world.cluster)
    check_untouched(world, before)


def test_good_version_touches_no_pod(world: World, pods: dict[str, str | None]) -> None:
    before = identities(world, pods)
    image = variant(world, GOOD, {})
    with cri.watched(world.node, cri.NODERUNTIME) as without_socket, node_watched(world) as not_ready:
        steps.upgrade_chart(world.cluster, image)
        wait_instance(world, phase="Ready", bundleDigest=GOOD)
    print(f"good version: {without_socket():.2f} s without a socket")
    assert without_socket() < 5
    assert not_ready == []
    check_untouched(world, before)
    steps.wait_ready(world.cluster)


def test_pods_of_the_old_version_end_under_the_new_one(world: World, pods: dict[str, str | None]) -> None:
    for name in pods:
        world.cluster.kubectl("delete", "pod", name, "--wait=false")
    for name in pods:
        world.cluster.kubectl.wait_gone("pod", name, timeout=90)
    world.cluster.kubectl("delete", "noderuntime", steps.RELEASE, "--wait=false")
    steps.delete_finishes(world.cluster, world.node)
