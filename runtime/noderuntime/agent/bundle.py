"""The bundle, from the agent's image into a directory of the node that is named after its digest.

A version appears under its name only when all of it is there, verified and on disk;
what a power cut left half copied has another name and is started over. A version
that was damaged later is mended file by file, so that whatever runs from it goes on.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from noderuntime.agent import durable_files as files
from noderuntime.agent.layout import Layout
from noderuntime.core import log
from noderuntime.core.errors import Internal

_log = log.get(__name__)

_DIGEST = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What makes one path of a tree what it is: mode bits with type, and content or link target."""

    mode: int
    content: str


def digest_of(source: Path) -> str:
    """Return the digest that a bundle says it has."""
    with files.host_errors(f"read {source}/BUNDLE"):
        digest = (source / "BUNDLE").read_text(encoding="ascii").strip()
    if not _DIGEST.fullmatch(digest):
        raise Internal(f"{source}/BUNDLE holds no digest")
    return digest


def install(source: Path, layout: Layout, *, verify: bool) -> bool:
    """Have the bundle on the node and ``current`` point at it; return whether anything was changed.

    With ``verify`` a version that is there is compared, contents and all, and mended.
    Blocks for seconds when there is much to copy. ResourceExhausted when the disk is
    full, with nothing half-made left.
    """
    digest = digest_of(source)
    target = layout.versions / digest
    with files.host_errors(f"install {target}"):
        if target.is_dir():
            changed = verify and _mend(source, target)
        else:
            _copy(source, target)
            changed = True
    return files.link(layout.current, f"versions/{digest}") or changed


def manifest(tree: Path) -> dict[str, Entry]:
    """Return every path below tree; of files the SHA-256."""
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
    """Copy under another name, make it durable, verify, rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    _log.info("installing the bundle", digest=target.name)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, symlinks=True)
        _sync_tree(partial)
        if manifest(partial) != manifest(source):
            raise Internal(f"{partial} is not what was copied: the disk or the memory of this node is bad")
        partial.rename(target)
    except shutil.Error as error:
        shutil.rmtree(partial, ignore_errors=True)
        _raise_first(error)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    files.sync_directory(target.parent)


def _raise_first(error: shutil.Error) -> None:
    """copytree collects its failures as texts; a full disk has to be told from the rest."""
    words = str(error.args[0][0][2]) if error.args and error.args[0] else str(error)
    number = re.search(r"\[Errno (\d+)\]", words)
    raise OSError(int(number[1]) if number else 0, words) from error


def _mend(source: Path, target: Path) -> bool:
    """Replace whatever differs; extra files do no harm and stay."""
    wanted = manifest(source)
    present = manifest(target)
    differing = [name for name, entry in sorted(wanted.items()) if present.get(name) != entry]
    for name in differing:
        _log.warning("mending a file of the bundle", path=target / name)
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
    """Make everything below durable. One sync of all filesystems is far cheaper than 5,000 fsyncs."""
    os.sync()
    files.sync_directory(tree)
