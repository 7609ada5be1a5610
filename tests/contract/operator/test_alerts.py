"""The chart's alert rules in Prometheus' own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

from control_plane import tool
from release import ROOT

RULES = ROOT / "charts/noderuntime/files/alerts.yaml"
TESTS = Path(__file__).parent / "alerts.yaml"


def promtool(*args: str, stdin: bytes | None = None) -> str:
    """Run promtool; fail the test with its output if it finds a problem."""
    done = subprocess.run([tool("promtool"), *args], input=stdin, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


def test_rules_are_valid_and_without_duplicates() -> None:
    assert "15 rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_alerts_fire_in_time_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))
