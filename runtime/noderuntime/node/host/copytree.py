"""Copies untrusted directory trees with everything that a filesystem keeps of them.

Symlinks are copied and never followed, hard links stay links, holes stay holes, and devices and fifos are
created and not read. The source must not change meanwhile. Blocks.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

_Inode = tuple[int, int]


def copy_tree(source: Path, target: Path) -> None:
    """Copy the content and the attributes of a directory into an empty one. OSError if it fails."""
    copied: dict[_Inode, Path] = {}
    directories = [(source, target)]
    for below, into in directories:  # grows
        for name in os.listdir(below):
            status = os.lstat(below / name)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(into / name, 0o700)
                directories.append((below / name, into / name))
            elif (inode := (status.st_dev, status.st_ino)) in copied:
                os.link(copied[inode], into / name, follow_symlinks=False)
            else:
                _copy_entry(below / name, into / name, status)
                if status.st_nlink > 1:
                    copied[inode] = into / name
    for below, into in reversed(directories):  # last, because a new entry changes its directory's times
        _copy_attributes(below, into, os.lstat(below))


def _copy_entry(source: Path, target: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        _copy_content(source, target, status.st_size)
    else:
        os.mknod(target, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
    _copy_attributes(source, target, status)


def _copy_content(source: Path, target: Path, size: int) -> None:
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        writer.truncate(size)
        position = 0
        while position < size:
            try:
                position = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole follows
                    return
                raise
            os.lseek(writer.fileno(), position, os.SEEK_SET)
            end = os.lseek(reader.fileno(), position, os.SEEK_HOLE)
            while position < end:
                position += os.sendfile(writer.fileno(), reader.fileno(), position, end - position)


def _copy_attributes(source: Path, target: Path, status: os.stat_result) -> None:
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)  # removes file capabilities
    shutil.copystat(source, target, follow_symlinks=False)
