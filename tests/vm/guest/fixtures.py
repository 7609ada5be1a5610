"""The contract tests' fixtures, for this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.guest.node import Service, SystemdKubelet


@pytest.fixture(scope="session")
def daemon() -> Service:
    """The daemon as systemd's service."""
    return Service()


@pytest.fixture
def kubelet(daemon: Service, tmp_path: Path) -> Iterator[SystemdKubelet]:
    """A kubelet whose pods must leave nothing at the end of the test."""
    client = SystemdKubelet(daemon.socket, tmp_path)
    yield client
    assert client.end(daemon) == []
