"""Add Debian's parts to the bundle; runs in the build container.

The tree already contains the Python packages and the static tools. Added are Debian's Python, conmon,
their loader and libraries, busybox and the pause root filesystem. The loader's path in the two dynamic
programs is a placeholder of the final length: seal.py replaces it with the digest.

Runs with the base image's Python and the standard library only.
"""

from __future__ import annotations

import compileall
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

LOADER = "ld-linux-x86-64.so.2"
PLACEHOLDER = f"/opt/noderuntime/versions/{'0' * 16}"
STDLIB = Path("/usr/lib/python3.11")

# The daemon imports none of these: tests, build and GUI modules, terminals.
STDLIB_LEFT_OUT = shutil.ignore_patterns(
    *(
        "__pycache__",
        "dist-packages",
        "sitecustomize.py",
        "EXTERNALLY-MANAGED",
        "LICENSE.txt",
        "config-3.11-*",
    ),
    *("test", "tests", "_testcapi*", "_ctypes_test*", "_test*", "_xx*", "xxlimited*"),
    *("idlelib", "tkinter", "turtle*", "lib2to3", "ensurepip", "distutils", "venv", "pydoc_data"),
    *("_curses*", "readline*", "nis.*", "ossaudiodev*", "_dbm*"),
)


def main(bundle: Path) -> None:
    """Add Debian's parts to the tree at bundle."""
    check_static(bundle / "bin")
    copy_programs(bundle)
    shutil.copytree(STDLIB, bundle / "lib/python3.11", ignore=STDLIB_LEFT_OUT, dirs_exist_ok=True)
    copy_libraries(bundle)
    patch(bundle)
    pause_rootfs(bundle / "share/pause")
    precompile(bundle)


def check_static(programs: Path) -> None:
    """Raise SystemExit for a tool that needs a loader: the node's loader may differ."""
    for path in programs.rglob("*"):
        if path.is_file() and b"ld-linux" in path.read_bytes()[:4096]:
            raise SystemExit(f"{path.name} is not static: build it with CGO_ENABLED=0 or -extldflags=-static")


def copy_programs(bundle: Path) -> None:
    """Copy Debian's programs into bin/."""
    for source, name in {
        "/usr/bin/python3.11": "python3",
        "/usr/bin/conmon": "conmon",
        "/bin/busybox": "busybox",
    }.items():
        shutil.copy(source, bundle / "bin" / name)


def copy_libraries(bundle: Path) -> None:
    """Copy the loader, and every shared library that an ELF file of the bundle needs."""
    # glibc loads libgcc by name when a thread is cancelled.
    wanted = {Path("/lib/x86_64-linux-gnu/libgcc_s.so.1")}
    for path in elf_files(bundle):
        wanted |= needed(path)
    for library in sorted(wanted):
        shutil.copy(library, bundle / "lib" / library.name)
    shutil.copy(f"/lib64/{LOADER}", bundle / "lib" / LOADER)


def elf_files(bundle: Path) -> list[Path]:
    """Return the dynamic ELF files: the two programs and the extension modules."""
    programs = [bundle / "bin/python3", bundle / "bin/conmon"]
    return programs + sorted(path for path in (bundle / "lib/python3.11").rglob("*.so*") if path.is_file())


def needed(path: Path) -> set[Path]:
    """Return the system libraries that the loader opens for path.

    Raises SystemExit if one is missing: the bundle would fail on the node.
    """
    listing = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
    if "not found" in listing:
        raise SystemExit(f"{path}: {listing}")
    found = {Path(match) for match in re.findall(r"=> (/\S+)", listing)}
    return {library for library in found if not library.is_relative_to("/bundle")}


def patch(bundle: Path) -> None:
    """Set the loader and the library path of the dynamic programs to the bundle's.

    DT_RPATH and not DT_RUNPATH: it also applies to the dependencies of libraries and precedes
    LD_LIBRARY_PATH. An absolute path and not $ORIGIN, which needs a mounted /proc.
    """
    for name in ("python3", "conmon"):
        subprocess.run(
            ["patchelf", "--force-rpath", "--set-rpath", f"{PLACEHOLDER}/lib",
             "--set-interpreter", f"{PLACEHOLDER}/lib/{LOADER}", str(bundle / "bin" / name)],
            check=True,
        )  # fmt: skip


def pause_rootfs(root: Path) -> None:
    """Create the pause container's root: static programs, and the mount points that runtimes need.

    busybox connects from inside pods with a separate network stack (port-forward into gVisor).
    """
    for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("hostname", "hosts", "resolv.conf"):
        (root / "etc" / name).touch()
    shutil.copy("/usr/bin/catatonit", root / "pause")
    shutil.copy("/bin/busybox", root / "busybox")


def precompile(bundle: Path) -> None:
    """Compile all modules without a check of their sources, because a bundle does not change."""
    ok = compileall.compile_dir(
        bundle / "lib/python3.11",
        quiet=1,
        workers=0,
        stripdir=str(bundle),
        prependdir=PLACEHOLDER,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not ok:
        raise SystemExit("compiling the bundle's modules failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
