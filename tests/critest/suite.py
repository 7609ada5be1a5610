"""Building critest with one constant replaced.

One spec pulls an upstream image by its digest, which a rebuilt image cannot have. The digest of
the rebuilt image replaces it when the suite is compiled; nothing else is changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from critest.programs import KEPT

_MODULE = Path(__file__).resolve().parents[2] / "tools" / "critest"
_NAME = "sigs.k8s.io/cri-tools"
_UPSTREAM = re.compile(rb'(registry \+ "test-image-digest@)sha256:[0-9a-f]{64}')


def build(digest: str) -> Path:
    """Return critest for that digest, compiled on the first call (about two minutes)."""
    version = _go("list", "-m", "-f", "{{.Version}}", _NAME)
    program = KEPT / f"critest-{version}-{digest.removeprefix('sha256:')[:16]}"
    if not program.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
            modfile = _copy_with(digest, Path(scratch))
            flags = (f"-modfile={modfile}", "-trimpath", "-ldflags", "-s -w")
            _go("test", "-c", *flags, "-o", str(program), f"{_NAME}/cmd/critest")
    return program


def _copy_with(digest: str, scratch: Path) -> Path:
    """Copy the suite's source, replace the digest, and return a go.mod that builds the copy."""
    _go("mod", "download", _NAME)
    source = scratch / "source"
    shutil.copytree(_go("list", "-m", "-f", "{{.Dir}}", _NAME), source, copy_function=shutil.copyfile)
    constants = source / "pkg/validate/consts.go"
    changed, count = _UPSTREAM.subn(rb"\g<1>" + digest.encode(), constants.read_bytes())
    if count != 1:
        raise RuntimeError(f"{constants.name} names the image by digest {count} times, not once")
    for folder in (source, *(path for path in source.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    constants.unlink()
    constants.write_bytes(changed)
    shutil.copyfile(_MODULE / "go.sum", scratch / "go.sum")
    modfile = scratch / "go.mod"
    modfile.write_text((_MODULE / "go.mod").read_text() + f"\nreplace {_NAME} => {source}\n")
    return modfile


def _go(*arguments: str) -> str:
    done = subprocess.run(["go", *arguments], cwd=_MODULE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"go {arguments[0]}: {done.stderr.strip()[-800:]}")
    return done.stdout.strip()
