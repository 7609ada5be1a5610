"""Directories to unpack into, and pools of workers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from layer_workers import LAYER, File, children

from noderuntime.node.layers.pool import Unpackers

SECRET = "secret of the node"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a directory for one layer, and set a worker's umask."""
    before = os.umask(0)
    yield tmp_path / "layer"
    os.umask(before)


@pytest.fixture
def root() -> None:
    """Skip a test that needs root: for devices, other owners, trusted attributes."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to change owners and create devices")


@pytest.fixture
def node(tmp_path: Path, target: Path) -> Iterator[Path]:
    """Create files outside the layer, and check after the test that they did not change."""
    target.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    (tmp_path / "passwd").write_text(SECRET)
    (outside / "link").symlink_to("secret")

    def state() -> dict[str, tuple[int, ...]]:
        found = {}
        for parent, directories, files in os.walk(tmp_path):
            if parent == str(target):
                directories.clear()
                continue
            for name in (*directories, *files):
                path = os.path.join(parent, name)
                if path == str(target):
                    continue
                status = os.lstat(path)
                found[path] = (
                    status.st_mode,
                    status.st_uid,
                    status.st_nlink,
                    status.st_size,
                    status.st_mtime_ns,
                    status.st_ctime_ns,
                )
        return found

    before = state()
    yield tmp_path
    assert state() == before
    assert (tmp_path / "passwd").read_text() == (outside / "secret").read_text() == SECRET


@pytest.fixture
async def unpackers() -> AsyncIterator[Unpackers]:
    """Return a pool of at most two workers, and check after the test that none is left."""
    pool = Unpackers(2)
    yield pool
    await pool.close()
    assert children() == set()


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[Callable[..., File]]:
    """Return a function that creates a file with a layer."""
    made: list[File] = []

    def make(content: bytes = LAYER, available: int | None = None) -> File:
        made.append(File(tmp_path, content, available))
        return made[-1]

    yield make
    for file in made:
        file.file.close()


@pytest.fixture
def new_directory(tmp_path: Path) -> Callable[[], Path]:
    """Return a function that creates an empty directory."""
    numbers = iter(range(1000))

    def make() -> Path:
        path = tmp_path / f"target{next(numbers)}"
        path.mkdir()
        return path

    return make
