"""The chart's rendered manifests, and the operator as a process."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane import tool

ROOT = Path(__file__).parents[3]
NAMESPACE = "noderuntime-system"


def render(*args: str) -> str:
    """Return the chart's manifests."""
    chart = str(ROOT / "charts/noderuntime")
    command = [tool("helm"), "template", "noderuntime", chart, "--kube-version=1.36.3", "-n", NAMESPACE]
    image = ["--set", "image.repository=example.test/noderuntime"]
    done = subprocess.run([*command, *image, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Operator:
    """A running operator process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
            return dict(json.load(answer))

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return "reconciler" in self.health()
        except OSError:
            return False
