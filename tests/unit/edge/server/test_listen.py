"""The socket file: claimed only from the dead."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from noderuntime.core.errors import AlreadyExists, FailedPrecondition
from noderuntime.edge.server.listen import make_way


def test_socket_of_a_killed_daemon_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "cri.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    make_way(path)
    assert not path.exists()


def test_socket_that_is_served_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cri.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(AlreadyExists, match="already serves"):
            make_way(path)
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_path_that_is_not_a_socket_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cri.sock"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match="not a socket"):
        make_way(path)
    assert path.is_symlink() or path.read_text() == "precious"


def test_missing_directory_is_created(tmp_path: Path) -> None:
    make_way(tmp_path / "run" / "noderuntime" / "cri.sock")
    assert (tmp_path / "run" / "noderuntime").is_dir()
