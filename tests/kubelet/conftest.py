"""A cluster per module, whose only node has a kubelet on noderuntime and no other runtime."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubelet.kit import traces
from kubelet.kit.pods import runtime_class
from kubelet.kit.workloads import Workloads
from kubelet.kit.world import World

from harness.cluster import Cluster
from harness.paths import REPO
from harness.run import run
from story import steps

_IMAGE = "localhost/noderuntime:kubelet-test"
_BUILD_SECONDS = 1200


@pytest.fixture(scope="session")
def bundle() -> Iterator[Path]:
    """The bundle from the project's image."""
    program = str(REPO / "image")
    run(sys.executable, f"{program}/build.py", "--image", _IMAGE, timeout=_BUILD_SECONDS)
    with tempfile.TemporaryDirectory(prefix="noderuntime-bundle-") as scratch:
        Path(scratch).chmod(0o755)
        run(sys.executable, f"{program}/export.py", _IMAGE, f"{scratch}/bundle")
        yield Path(scratch) / "bundle"


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, bundle: Path) -> Iterator[World]:
    """A cluster of one node, named after the module; its pods leave nothing before the node is removed."""
    name = f"kl-{request.module.__name__.removeprefix('test_')[:8].replace('_', '-')}"
    cluster = Cluster(name)
    cluster.down()
    failures = request.session.testsfailed
    try:
        yield _boot(cluster, bundle)
        if request.session.testsfailed == failures:
            traces.nothing_runs(cluster.nodes()[0])
    finally:
        if request.session.testsfailed > failures:
            steps.save_logs(cluster, REPO / "build" / "kubelet-logs" / name)
        cluster.down()
    assert cluster.leftovers() == []


@pytest.fixture
def workloads(world: World) -> Iterator[Workloads]:
    """The objects that a test applies; deleted at its end."""
    made = Workloads(world.cluster, world.node)
    yield made
    made.remove()


def _boot(cluster: Cluster, bundle: Path) -> World:
    cluster.up()
    node = cluster.add_node(style="DropIn", bundle=bundle)
    cluster.kubectl.wait_node_ready(node.name)
    cluster.kubectl.apply(runtime_class("runc"), runtime_class("gvisor"))
    return World(cluster, node)
