"""Other versions of a bundle: copies under another digest, with changed files."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.paths import CACHE
from harness.run import run

PACKAGE = "lib/python3.11/dist-packages/noderuntime"
_NAMED = ("bin/python3", "bin/conmon", "bin/noderuntime", "BUNDLE")
"""Files that contain the digest, which is as long in every version."""

Edits = Mapping[str, tuple[str, str] | str]
"""By a file's path in the bundle: a text of it and what replaces the text, or the whole content."""

_SERVE = f"{PACKAGE}/cli/serve.py"
_RUN = '    """Run the daemon until SIGTERM."""\n'
EXITS: Edits = {_SERVE: (_RUN, f"{_RUN}    raise OSError('the ledger is upside down')\n")}
HANGS: Edits = {_SERVE: (_RUN, f"{_RUN}    __import__('time').sleep(600)\n")}
REFUSES_LOG_LEVEL: Edits = {f"{PACKAGE}/config.py": ("    level: Literal", "    verbosity: Literal")}
_BROKEN_RUNSC = """\
#!/bin/sh
case "$*" in *--version*) echo runsc version broken; exit 0 ;; esac
echo this runsc only knows its version >&2
exit 1
"""
CANARY_FAILS: Edits = {"bin/runsc": _BROKEN_RUNSC}


_FAST = ("--compression-format=zstd", "--compression-level=1")
"""Options of a push: the layer of a version has 150 MiB."""


def other_version(bundle: Path, versions: Path, digest: str, edits: Edits) -> Path:
    """Copy a bundle to another digest below ``versions``, with edits; return it."""
    target = versions / digest
    shutil.copytree(bundle, target, symlinks=True)
    for name in _NAMED:
        path = target / name
        path.write_bytes(path.read_bytes().replace(bundle.name.encode(), digest.encode()))
    for name, change in edits.items():
        if isinstance(change, str):
            (target / name).write_text(change)
        else:
            edit(target / name, *change)
    return target


def edit(path: Path, before: str, after: str) -> None:
    """Replace a text that the module contains once, and forget its compiled form."""
    text = path.read_text()
    if text.count(before) != 1:
        raise AssertionError(f"{path} contains {text.count(before)} times {before!r}")
    path.write_text(text.replace(before, after))
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def other_image(image: str, to: str, digest: str, edits: Edits) -> None:
    """Push an image that has another version of the bundle than an image of image/build.py."""
    with _locked():
        container = _buildah("from", image).strip()
        try:
            opt = Path(_buildah("mount", container).strip()) / "opt/noderuntime"
            bundle = (opt / "bundle").resolve()
            other_version(bundle, opt / "versions", digest, edits)
            (opt / "bundle").unlink()
            (opt / "bundle").symlink_to(f"versions/{digest}")
            shutil.rmtree(bundle)
            _buildah("commit", "--quiet", "--timestamp=0", container, to)
            _buildah("push", "--quiet", "--tls-verify=false", *_FAST, to, f"docker://{to}")
        finally:
            _buildah("rm", container)


def _buildah(*arguments: str) -> str:
    """Run buildah on the store of image/buildah.py."""
    store = CACHE / "image/store"
    return run("buildah", f"--root={store}", "--runroot=/run/noderuntime-image", *arguments, timeout=300)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with (CACHE / "image/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
