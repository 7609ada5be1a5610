import os
import stat
from pathlib import Path

import pytest

from noderuntime.node.host.copytree import copy_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    directory = tmp_path / "source"
    (directory / "below").mkdir(parents=True)
    return directory


def copied(source: Path) -> Path:
    target = source.parent / "target"
    copy_tree(source, target)
    return target


def test_modes_and_times_are_copied(source: Path) -> None:
    (source / "below/file").write_text("x")
    (source / "below/file").chmod(0o4751)
    source.chmod(0o1777)
    for path in (source / "below/file", source / "below"):
        os.utime(path, ns=(0, 1_000_000_007))
    target = copied(source)
    assert (target / "below/file").read_text() == "x"
    assert stat.S_IMODE((target / "below/file").stat().st_mode) == 0o4751
    assert stat.S_IMODE(target.stat().st_mode) == 0o1777
    assert (target / "below/file").stat().st_mtime_ns == 1_000_000_007
    assert (target / "below").stat().st_mtime_ns == 1_000_000_007


def test_symlinks_and_hard_links_stay_links(source: Path) -> None:
    (source / "first").write_text("x")
    (source / "below/second").hardlink_to(source / "first")
    (source / "out").symlink_to("/etc")
    target = copied(source)
    assert os.readlink(target / "out") == "/etc"
    assert (target / "first").samefile(target / "below/second")
    assert not (target / "first").samefile(source / "first")


def test_holes_stay_holes(source: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"data")
    status = (copied(source) / "sparse").stat()
    assert status.st_size == 1 << 40
    assert status.st_blocks < 100
    with (source.parent / "target/sparse").open("rb") as file:
        file.seek(1 << 39)
        assert file.read(5) == b"data\0"


def test_fifos_are_created_and_not_read(source: Path) -> None:
    os.mkfifo(source / "fifo", 0o640)
    mode = (copied(source) / "fifo").stat().st_mode
    assert stat.S_ISFIFO(mode)
    assert stat.S_IMODE(mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set owners and capabilities")
def test_owners_and_capabilities_are_copied(source: Path) -> None:
    program = source / "program"
    program.write_text("x")
    os.chown(program, 1234, 2345)
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    os.setxattr(program, "security.capability", capability)
    target = copied(source) / "program"
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 2345)
    assert os.getxattr(target, "security.capability") == capability
