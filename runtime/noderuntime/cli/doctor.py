"""``noderuntime doctor``: Check this node and suggest a fix for each problem. Needs no running daemon."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from noderuntime.cli import options, text
from noderuntime.config import CONFIG_FILE
from noderuntime.core import loop
from noderuntime.doctor.examine import examine
from noderuntime.doctor.finding import Finding, State


def run(arguments: Sequence[str]) -> int:
    """Print the findings. Return 1 if a check failed, else 0."""
    parser = argparse.ArgumentParser(
        prog="noderuntime doctor",
        description="Check this node and suggest a fix for each problem. Needs no running daemon.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=CONFIG_FILE,
        help="the daemon's configuration file (default: %(default)s)",
    )
    options.add_output(parser)
    args = parser.parse_args(arguments)
    findings = loop.run(examine(args.config))
    if args.output == "json":
        sys.stdout.write(options.as_json({"findings": [dataclasses.asdict(finding) for finding in findings]}))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(findings))
    return int(any(finding.state is State.FAIL for finding in findings))


def _lines(findings: Sequence[Finding]) -> Iterable[str]:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        yield f"{finding.state:4}  {text.printable(finding.check):{width}}  {text.printable(finding.found)}"
        if finding.advice:
            yield f"{'':4}  {'':{width}}  → {text.printable(finding.advice)}"
