"""Programs for the images, built once and cached outside of the checkout."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from realnode.tools import CACHE_BIN

KEPT = CACHE_BIN.parent / "critest"
_BUSYBOX = "1:1.35.0-4+deb12u1"
# The suite replaces /bin/ls, so the shell must run files and not applets.
_OFF = ("FEATURE_SH_STANDALONE", "FEATURE_PREFER_APPLETS", "FEATURE_SH_NOFORK", "TC")


def compiled(name: str) -> Path:
    """Return a static program, compiled from ``NAME.c`` beside this file."""
    source = Path(__file__).with_name(f"{name}.c")
    program = KEPT / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        KEPT.mkdir(parents=True, exist_ok=True)
        _run("gcc", "-static", "-Os", "-s", "-o", str(program), str(source))
    return program


def busybox() -> Path:
    """Return a static busybox built from Debian's source package (two minutes the first time)."""
    program = KEPT / f"busybox-{_BUSYBOX.rpartition(':')[2]}"
    if not program.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
            _build_busybox(Path(scratch)).rename(program)
    return program


def debian_files(packages: tuple[str, ...], target: Path) -> None:
    """Unpack the newest versions of Debian packages into a directory, without installing them."""
    with tempfile.TemporaryDirectory() as scratch:
        _run("apt-get", "download", "-q", *packages, cwd=Path(scratch))
        for package in sorted(Path(scratch).glob("*.deb")):
            _run("dpkg-deb", "-x", str(package), str(target))


def _build_busybox(scratch: Path) -> Path:
    options = _source_lists(scratch)
    _run("apt-get", *options, "-q", "update")
    _run("apt-get", *options, "-q", "source", "--download-only", f"busybox={_BUSYBOX}", cwd=scratch)
    _run("tar", "-xf", str(next(scratch.glob("busybox_*.orig.tar.bz2"))), cwd=scratch)
    tree = next(path for path in scratch.glob("busybox-*") if path.is_dir())
    _run("make", "-s", "defconfig", cwd=tree)
    lines = (tree / ".config").read_text().splitlines()
    unwanted = {f"CONFIG_{name}=y": f"# CONFIG_{name} is not set" for name in _OFF}
    unwanted["# CONFIG_STATIC is not set"] = "CONFIG_STATIC=y"
    (tree / ".config").write_text("".join(f"{unwanted.get(line, line)}\n" for line in lines))
    _run("sh", "-c", "yes '' | make -s oldconfig && make -s -j$(nproc) busybox", cwd=tree)
    return tree / "busybox"


def _source_lists(scratch: Path) -> tuple[str, ...]:
    """Return apt options that read source packages from the mirrors of this machine's binary packages."""
    known = _run(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"
    )
    sources = scratch / "sources.list"
    sources.write_text("".join(f"deb-src {line}\n" for line in sorted(set(known.splitlines()))))
    (scratch / "lists").mkdir()
    return (
        f"-oDir::Etc::sourcelist={sources}",
        "-oDir::Etc::sourceparts=-",
        f"-oDir::State::lists={scratch / 'lists'}",
    )


def _run(*argv: str, cwd: Path | None = None) -> str:
    """Run a program and return its output; raise an error with its output if it fails."""
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stderr.strip()[-800:]}")
    return done.stdout
