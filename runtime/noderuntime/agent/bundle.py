"""Installation of the bundle from the agent's image into a directory on the node named after its digest.

A version is renamed to its final name only after all files are copied, verified and synced to disk. A
copy that a power cut interrupted has a temporary name and is started over. A version that was damaged
later is repaired file by file, so that processes that run from it are not interrupted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from noderuntime.agent.layout import Layout
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import Internal, ResourceExhausted, file_error, os_errors
from noderuntime.node.host.syscalls import sync_filesystem

_log = log.get(__name__)

_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """A path's mode bits with the file type, and the content's SHA-256 or the symlink's target."""

    mode: int
    content: str


def digest_of(source: Path) -> str:
    """Return the digest in the bundle's file BUNDLE. Internal if it is invalid."""
    with os_errors(f"read {source}/BUNDLE", file_error):
        digest = (source / "BUNDLE").read_text(encoding="ascii").strip()
    if not _DIGEST.fullmatch(digest):
        raise Internal(f"{source}/BUNDLE does not contain a digest")
    return digest


def install(source: Path, layout: Layout, *, verify: bool) -> bool:
    """Install the bundle beside other versions, and return whether anything was changed.

    With ``verify``, compare the content of an installed version with the source and repair it.
    Blocks for seconds while files are copied. Raises ResourceExhausted when the disk is
    full, after it has removed the partial copy.
    """
    digest = digest_of(source)
    target = layout.versions / digest
    with os_errors(f"install {target}", file_error):
        if target.is_dir():
            return verify and _repair(source, target)
        _copy(source, target)
    return True


def manifest(tree: Path) -> dict[str, Entry]:
    """Return the entry of every path below the tree, by relative path."""
    found: dict[str, Entry] = {}
    for directory, names, leaves in os.walk(tree):
        for name in (*names, *leaves):
            path = Path(directory, name)
            found[str(path.relative_to(tree))] = _entry(path)
    return found


def _entry(path: Path) -> Entry:
    known = path.lstat()
    if stat.S_ISLNK(known.st_mode):
        return Entry(known.st_mode, os.readlink(path))
    if stat.S_ISDIR(known.st_mode):
        return Entry(known.st_mode, "")
    with path.open("rb") as file:
        return Entry(known.st_mode, hashlib.file_digest(file, "sha256").hexdigest())


def _copy(source: Path, target: Path) -> None:
    """Copy to a temporary name, sync, verify and rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _require_space(source, target.parent)
    _log.info("installing the bundle", digest=target.name)
    try:
        shutil.copytree(source, partial, symlinks=True)
        _sync_tree(partial)
        if manifest(partial) != manifest(source):
            raise Internal(f"{partial} differs from its source: check the disk and the memory of this node")
        partial.rename(target)
    except shutil.Error as error:
        shutil.rmtree(partial, ignore_errors=True)
        _raise_first(error)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    files.sync_directory(target.parent)


def _require_space(source: Path, directory: Path) -> None:
    """Raise ResourceExhausted if the copy does not fit: attempts must not fill the disk again and again."""
    needed = sum(path.lstat().st_size + _BLOCK for path in source.rglob("*"))
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ResourceExhausted(
            f"No space left in {directory}: the bundle needs {needed >> 20} MiB, {free >> 20} MiB are free"
        )


def _raise_first(error: shutil.Error) -> None:
    """Raise the first failure that copytree collected, as an OSError with its errno."""
    message = str(error.args[0][0][2]) if error.args and error.args[0] else str(error)
    number = re.search(r"\[Errno (\d+)\]", message)
    raise OSError(int(number[1]) if number else 0, message) from error


def _repair(source: Path, target: Path) -> bool:
    """Replace every path that differs and return whether one did. Extra files are harmless and stay."""
    expected = manifest(source)
    actual = manifest(target)
    differing = [name for name, entry in sorted(expected.items()) if actual.get(name) != entry]
    for name in differing:
        _log.warning("repairing a file of the bundle", path=target / name)
        _replace(source / name, target / name)
    if differing:
        _sync_tree(target)
    return bool(differing)


def _replace(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            target.unlink()
        target.mkdir(exist_ok=True)
        shutil.copystat(source, target)
        return
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    shutil.copy2(source, temporary, follow_symlinks=False)
    temporary.replace(target)


def _sync_tree(tree: Path) -> None:
    """Sync the tree to disk. One sync of its filesystem is much cheaper than 5,000 fsyncs.

    A sync of all filesystems would wait for a volume whose server does not respond, and hide a failed write.
    """
    sync_filesystem(tree)
