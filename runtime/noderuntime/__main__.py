"""``python -m noderuntime``."""

from __future__ import annotations

import faulthandler
import os
import sys

# Read by gRPC when it is imported. Fork handlers would stop its threads around every spawn of ours.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from noderuntime.cli import run


def main() -> None:
    """Run the command line and leave with its exit status."""
    faulthandler.enable()  # a watchdog's SIGABRT, and crashes, print where every thread is
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
