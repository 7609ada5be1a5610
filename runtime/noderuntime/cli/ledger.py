"""``noderuntime ledger``: Print the ledger, also of a daemon that does not run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from noderuntime.lifecycle.ledger.dump import dump


def run(arguments: Sequence[str]) -> int:
    """Print the ledger as JSON."""
    parser = argparse.ArgumentParser(
        prog="noderuntime ledger", description="Print the ledger, also of a daemon that does not run."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser(
        "dump", help="print all records as JSON; values of environment variables are left out"
    )
    verb.add_argument(
        "--state-dir",
        type=Path,
        default=Path("/var/lib/noderuntime"),
        help="the daemon's server.state_dir (default: %(default)s)",
    )
    content = dump(parser.parse_args(arguments).state_dir)
    json.dump(content, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0
