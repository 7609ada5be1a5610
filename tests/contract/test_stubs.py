"""The committed gRPC stubs match what protoc generates from the schemas beside them."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def stubs(root):
    return {
        path.relative_to(root): path.read_text() for path in root.rglob("*_pb2*.py*") if path.suffix != ".pyc"
    }


def test_the_stubs_are_current(tmp_path):
    schemas = shutil.ignore_patterns("*.py", "*.pyi", "__pycache__")
    shutil.copytree(ROOT / "runtime", tmp_path / "runtime", ignore=schemas)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    subprocess.run([tmp_path / "scripts/proto"], check=True, env={"PYTHON": sys.executable}, timeout=120)
    assert stubs(tmp_path / "runtime") == stubs(ROOT / "runtime")
