"""Make the bundle of one version from the collected parts and our package, and name it.

The name is a digest of all inputs: equal inputs are the same version, and a node can have several
versions at once. The bundle is ``<root>/versions/<digest>``, and ``<root>/bundle`` is a link to it. It runs
at this path only, because the kernel needs absolute paths of loaders and interpreters.

Runs with the base image's Python and the standard library only.
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
SITE = "lib/python3.11/dist-packages"  # Debian's Python searches it in any prefix

LAUNCHER = """#!{python} -I
from noderuntime.__main__ import main

raise SystemExit(main())
"""


def main(parts: Path, package: Path, root: Path) -> None:
    """Write the bundle of parts and package below root."""
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
    """Return a digest of 16 hex digits over names, modes and contents, without compiled modules."""
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
    """Compile our own modules in the way of collect.py."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(package, quiet=1, workers=0, invalidation_mode=mode):
        raise SystemExit("compiling noderuntime failed")


def put_digest(program: Path, digest: str) -> None:
    """Replace the placeholder in the paths of loader and libraries with the digest, which is as long."""
    content = program.read_bytes()
    before = f"/versions/{PLACEHOLDER}/lib".encode()
    if content.count(before) != 2:
        raise SystemExit(f"{program}: expected 2 placeholders of the digest, found {content.count(before)}")
    program.write_bytes(content.replace(before, f"/versions/{digest}/lib".encode()))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
