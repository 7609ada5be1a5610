"""The cluster that the tests of a module share."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cluster import Cluster
from harness.node import Node


@dataclass(frozen=True)
class World:
    """A cluster with its node."""

    cluster: Cluster
    node: Node
