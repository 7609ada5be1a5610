"""containerd's way to gVisor: its shim, from the module that runsc is built from, with one constant replaced.

The shim insists on a score that keeps the kernel's OOM killer away from it, and does not start where
nobody may lower that score (containerd's own shim takes what it gets). A score of 0 works everywhere.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from realnode.tools import CACHE_BIN

_MODULE = Path(__file__).resolve().parents[2] / "tools" / "runsc"
_NAME = "gvisor.dev/gvisor"
_CONSTANT, _REPLACED = "oomScoreMax = -999", "oomScoreMax = 0"


def shim() -> Path:
    """Return the program, compiled on the first call."""
    version = _go("list", "-m", "-f", "{{.Version}}", _NAME)
    program = CACHE_BIN.parent / "bench" / f"shim-{version}" / "containerd-shim-runsc-v1"
    if not program.exists():
        print(f"building {program}", flush=True)
        with tempfile.TemporaryDirectory(prefix="noderuntime-shim-") as scratch:
            flags = (f"-modfile={_copy(Path(scratch))}", "-trimpath", "-ldflags=-s -w")
            _go("build", *flags, "-o", str(program), f"{_NAME}/shim")
    return program


def _copy(scratch: Path) -> Path:
    """Copy the module with the other constant; return a go.mod that builds from the copy."""
    _go("mod", "download", _NAME)
    source = scratch / "source"
    shutil.copytree(_go("list", "-m", "-f", "{{.Dir}}", _NAME), source, copy_function=shutil.copyfile)
    manager = source / "pkg/shim/v1/manager.go"
    text = manager.read_text()
    if text.count(_CONSTANT) != 1:
        raise RuntimeError(f"{manager.name} does not say {_CONSTANT} once")
    manager.write_text(text.replace(_CONSTANT, _REPLACED))
    shutil.copyfile(_MODULE / "go.sum", scratch / "go.sum")
    modfile = scratch / "go.mod"
    modfile.write_text((_MODULE / "go.mod").read_text() + f"\nreplace {_NAME} => {source}\n")
    return modfile


def _go(*arguments: str) -> str:
    done = subprocess.run(["go", *arguments], cwd=_MODULE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"go {arguments[0]}: {done.stderr.strip()[-800:]}")
    return done.stdout.strip()
