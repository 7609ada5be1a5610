"""The chart's rendered manifests, and the operator as a process."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane import eventually, tool

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


@dataclass
class Operator:
    """An operator process, which can be started again after its end, as the Deployment does."""

    env: dict[str, str]
    port: int
    metrics_port: int
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start the process and wait until it reconciles."""
        ports = ("--health-port", str(self.port), "--metrics-port", str(self.metrics_port))
        command = [sys.executable, "-m", "noderuntime_operator", *ports]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(command, env=self.env, stdout=sink, stderr=subprocess.STDOUT)
        eventually(self.is_up, f"the operator does not start, see {self.log}")

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
            return dict(json.load(answer))

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def logged(self, since: int = 0) -> str:
        """Return the log from an offset on. All tests of a run share the operator and its log."""
        return self.log.read_text()[since:]

    def leads(self) -> bool:
        return "noderuntime_operator_leader 1.0" in self.metrics()

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return "reconciler" in self.health()
        except OSError:
            return False
