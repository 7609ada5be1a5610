"""Make the bundle of one version: the collected parts, our package, and a name.

The name is a digest of everything that went in, so that equal inputs are the same
version, and a node can keep several side by side. The tree ends up at
``<root>/versions/<digest>``, with ``<root>/bundle`` pointing at it: the only place where
it runs, because the kernel wants absolute paths of loaders and interpreters.

Run by the base's own Python; uses the standard library only.
"""

from __future__ import annotations

import compileall
import hashlib
import py_compile
import shutil
import stat
import sys
from pathlib import Path

PLACEHOLDER = "0" * 16
PATCHED = ("bin/python3", "bin/conmon")
SITE = "lib/python3.11/dist-packages"  # where Debian's Python looks, in any prefix

LAUNCHER = """#!{python} -I
from noderuntime.__main__ import main

raise SystemExit(main())
"""


def main(parts: Path, package: Path, root: Path) -> None:
    """Write the bundle made of parts and package below root."""
    digest = tree_digest(parts, package)
    home = root / "versions" / digest
    shutil.copytree(parts, home, symlinks=True)
    shutil.copytree(package, home / SITE / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    compile_package(home / SITE / package.name)
    for name in PATCHED:
        put_digest(home / name, digest)
    launcher = home / "bin/noderuntime"
    launcher.write_text(LAUNCHER.format(python=home / "bin/python3"), encoding="utf-8")
    launcher.chmod(0o755)
    (home / "BUNDLE").write_text(f"{digest}\n", encoding="utf-8")
    (root / "bundle").symlink_to(f"versions/{digest}")


def tree_digest(*trees: Path) -> str:
    """Return 16 hex digits over names, modes and contents; compiled modules follow from their sources."""
    total = hashlib.sha256(LAUNCHER.encode())
    for tree in trees:
        for path in sorted(tree.rglob("*")):
            if "__pycache__" in path.parts or path.is_dir():
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(tree)} {mode:o} {content}\n".encode())
    return total.hexdigest()[: len(PLACEHOLDER)]


def compile_package(package: Path) -> None:
    """Compile our own modules as collect.py compiled the others."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(package, quiet=1, workers=0, invalidation_mode=mode):
        raise SystemExit("compiling noderuntime failed")


def put_digest(program: Path, digest: str) -> None:
    """Replace the placeholder in the paths of loader and libraries; it has the same length."""
    content = program.read_bytes()
    before = f"/versions/{PLACEHOLDER}/lib".encode()
    if content.count(before) != 2:
        raise SystemExit(f"{program}: found {content.count(before)} placeholders")
    program.write_bytes(content.replace(before, f"/versions/{digest}/lib".encode()))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
