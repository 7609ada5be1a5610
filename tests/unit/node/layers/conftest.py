"""A place to unpack into, as a worker finds it."""

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
    """A directory for one layer; the umask is a worker's."""
    before = os.umask(0)
    yield tmp_path / "layer"
    os.umask(before)


@pytest.fixture
def root() -> None:
    """For what only root may do: devices, other owners, trusted attributes."""
    if os.geteuid() != 0:
        pytest.skip("needs root, who alone may give files away and make devices")


@pytest.fixture
def node(tmp_path: Path, target: Path) -> Iterator[Path]:
    """Everything around the layer, which must look the same afterwards."""
    target.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    (tmp_path / "passwd").write_text(SECRET)
    (outside / "link").symlink_to("secret")

    def state() -> dict[str, tuple[int, ...]]:
        found = {}
        for place, directories, files in os.walk(tmp_path):
            if place == str(target):
                directories.clear()
                continue
            for name in (*directories, *files):
                path = os.path.join(place, name)
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
    """At most two workers; none is left behind."""
    pool = Unpackers(2)
    yield pool
    await pool.close()
    assert children() == set()


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[Callable[..., File]]:
    """Makes files with layers in them."""
    made: list[File] = []

    def make(content: bytes = LAYER, there: int | None = None) -> File:
        made.append(File(tmp_path, content, there))
        return made[-1]

    yield make
    for one in made:
        one.file.close()


@pytest.fixture
def place(tmp_path: Path) -> Callable[[], Path]:
    """Makes empty directories."""
    numbers = iter(range(1000))

    def make() -> Path:
        path = tmp_path / f"target{next(numbers)}"
        path.mkdir()
        return path

    return make
