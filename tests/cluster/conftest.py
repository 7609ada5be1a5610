"""Clusters for the tests: one per module, removed after it, with a check that nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.cluster import Cluster
from harness.node import Node
from harness.paths import REPO
from story import steps


@dataclass(frozen=True)
class World:
    """A cluster with its first node and the pushed image."""

    cluster: Cluster
    node: Node
    image: str


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A cluster of one node, named after the module; the tests of a module share it and run in order."""
    name = request.module.__name__.removeprefix("test_")[:9]
    cluster = Cluster(name)
    cluster.down()
    failures = request.session.testsfailed
    try:
        image = steps.build_image(cluster)
        yield World(cluster, steps.boot(cluster), image)
    finally:
        if request.session.testsfailed > failures:
            steps.save_logs(cluster, REPO / "build" / "cluster-logs" / name)
        cluster.down()
    assert cluster.leftovers() == []
