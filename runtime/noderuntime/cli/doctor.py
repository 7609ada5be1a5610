"""``noderuntime doctor``: what is wrong with this node, and what to do about it. Needs no daemon."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from noderuntime.cli import options, text
from noderuntime.config import CONFIG_FILE
from noderuntime.doctor.examine import examine
from noderuntime.doctor.finding import Finding, State


def run(arguments: Sequence[str]) -> int:
    """Print findings; the exit status is 1 if one of them is a failure."""
    parser = argparse.ArgumentParser(prog="noderuntime doctor", description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=CONFIG_FILE, help="of the daemon; default: %(default)s"
    )
    options.add_output(parser)
    chosen = parser.parse_args(arguments)
    findings = asyncio.run(examine(chosen.config))
    if chosen.output == "json":
        sys.stdout.write(options.as_json({"findings": [dataclasses.asdict(one) for one in findings]}))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(findings))
    return int(any(one.state is State.FAIL for one in findings))


def _lines(findings: Sequence[Finding]) -> Iterable[str]:
    width = max(len(one.check) for one in findings)
    for one in findings:
        yield f"{one.state:4}  {text.printable(one.check):{width}}  {text.printable(one.found)}"
        if one.advice:
            yield f"{'':4}  {'':{width}}  → {text.printable(one.advice)}"
