"""The agent installs a bundle on a disk that is too small for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderuntime.agent import bundle
from noderuntime.agent.layout import Layout
from noderuntime.core.errors import ResourceExhausted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted filesystem of 256 KiB."""
    mount_point = tmp_path / "small"
    mount_point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount_point], check=True)
    yield mount_point
    subprocess.run(["umount", mount_point], check=True)


def test_install_on_a_full_disk_fails_and_leaves_no_files(small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "BUNDLE").write_text("0123456789abcdef\n")
    (source / "big").write_bytes(os.urandom(1 << 20))
    with pytest.raises(ResourceExhausted, match="the bundle needs 1 MiB, 0 MiB are free"):
        bundle.install(source, Layout(small_disk), verify=True)
    assert list(Layout(small_disk).versions.iterdir()) == []
    assert not Layout(small_disk).current.is_symlink()
