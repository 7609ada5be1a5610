"""The socket file: claimed only from the dead."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from noderuntime.core.errors import AlreadyExists, FailedPrecondition
from noderuntime.edge.server.listen import make_way


def test_a_socket_that_a_killed_daemon_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "cri.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    make_way(path)
    assert not path.exists()


def test_a_socket_on_which_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cri.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(AlreadyExists, match="already serves"):
            make_way(path)
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_anything_else_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cri.sock"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match="no socket"):
        make_way(path)
    assert path.is_symlink() or path.read_text() == "precious"


def test_the_directory_is_made(tmp_path: Path) -> None:
    make_way(tmp_path / "run" / "noderuntime" / "cri.sock")
    assert (tmp_path / "run" / "noderuntime").is_dir()
