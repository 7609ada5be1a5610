"""gVisor's shim for containerd, built from the module of runsc, with one constant replaced.

The shim sets its OOM score to -999 and does not start if it cannot (containerd's own shim ignores the
failure). Some machines do not allow a score below 0, so it is built with 0.
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
    """Return the path of the program, compiled on the first call."""
    version = _go("list", "-m", "-f", "{{.Version}}", _NAME)
    program = CACHE_BIN.parent / "bench" / f"shim-{version}" / "containerd-shim-runsc-v1"
    if not program.exists():
        print(f"building {program}", flush=True)
        with tempfile.TemporaryDirectory(prefix="noderuntime-shim-") as scratch:
            flags = (f"-modfile={_copy(Path(scratch))}", "-trimpath", "-ldflags=-s -w")
            _go("build", *flags, "-o", str(program), f"{_NAME}/shim")
    return program


def _copy(scratch: Path) -> Path:
    """Copy the module, replace the constant, and return a go.mod that builds the copy."""
    _go("mod", "download", _NAME)
    source = scratch / "source"
    shutil.copytree(_go("list", "-m", "-f", "{{.Dir}}", _NAME), source, copy_function=shutil.copyfile)
    manager = source / "pkg/shim/v1/manager.go"
    text = manager.read_text()
    if text.count(_CONSTANT) != 1:
        raise RuntimeError(f"{manager.name} must contain {_CONSTANT!r} exactly once")
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
