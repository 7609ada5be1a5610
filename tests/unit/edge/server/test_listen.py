"""The socket file: claimed only from the dead."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import grpc
import pytest

from noderuntime.core.errors import AlreadyExists, FailedPrecondition
from noderuntime.edge.server.listen import bind, make_way


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


async def test_only_root_can_connect_and_other_threads_keep_their_umask(tmp_path: Path) -> None:
    path, modes, stop = tmp_path / "cri.sock", set(), threading.Event()

    def create() -> None:
        while not stop.is_set():
            (tmp_path / "file").touch()
            modes.add(stat.S_IMODE((tmp_path / "file").stat().st_mode))
            (tmp_path / "file").unlink()

    creating = threading.Thread(target=create)
    before = os.umask(0o022)
    try:
        creating.start()
        for _ in range(50):
            server = grpc.aio.server()
            bind(server, path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            await server.stop(0)
    finally:
        stop.set()
        creating.join()
        os.umask(before)
    assert modes == {0o644}
