"""What the contract tests ask for by these names, of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.guest.node import Service, SystemdKubelet


@pytest.fixture(scope="session")
def daemon() -> Service:
    """The daemon as systemd runs it."""
    return Service()


@pytest.fixture
def kubelet(daemon: Service, tmp_path: Path) -> Iterator[SystemdKubelet]:
    """A kubelet whose pods have to be gone, with all they had, when the test ends."""
    client = SystemdKubelet(daemon.socket, tmp_path)
    yield client
    assert client.end(daemon) == []
