"""``python -m scale``: measure the operator with NODES nodes (default: 5000) and check what it does.

Prints a table with targets and writes ``build/bench/scale.json``. A wrong status, a lost label or a stage
that does not converge ends it with exit status 1; a missed target does not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
import time
from datetime import UTC, datetime

from bench.machine import Idle

from scale import disturbances, stages
from scale.figures import Figures
from scale.stages import Run, Wrong
from scale.world import world

_NODES_PER_PROCESS = 1250
_ALL = {
    "install": stages.install,
    "steady": stages.steady,
    "storm": stages.storm,
    "operator-kill": disturbances.operator_kill,
    "apiserver-restart": disturbances.apiserver_restart,
    "compaction": disturbances.compaction,
    "rollout": stages.rollout,
}


def main() -> int:
    """Run the stages."""
    parser = argparse.ArgumentParser(prog="scale", description=__doc__)
    parser.add_argument("--nodes", type=int, default=int(os.environ.get("NODES") or 5000))
    parser.add_argument(
        "--processes", type=int, default=0, help="of simulated nodes (default: 1250 nodes each)"
    )
    parser.add_argument("--stages", default=",".join(_ALL), help="default: %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    figures, began, idle = Figures(), time.monotonic(), Idle()
    try:
        asyncio.run(_run(options, figures))
    except Wrong as error:
        print(f"\nscale: WRONG: {error}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nscale: interrupted", flush=True)
        return 130
    finally:
        path = figures.write(
            nodes=options.nodes,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            machine=f"{os.cpu_count()} CPUs, {platform.machine()}",
            idle=round(idle.fraction(), 2),
        )
    print(f"\n{path}: {options.nodes} nodes, {time.monotonic() - began:.0f} s", flush=True)
    return 0


async def _run(options: argparse.Namespace, figures: Figures) -> None:
    processes = options.processes or max(2, -(-options.nodes // _NODES_PER_PROCESS))
    small = options.nodes < 2000
    async with world(options.nodes, processes) as here:
        run = Run(
            here,
            figures,
            ready_limit=300 if small else 900,
            steady_seconds=10 if small else 120,
            storm_seconds=15 if small else 60,
        )
        for name in options.stages.split(","):
            await _ALL[name](run)


if __name__ == "__main__":
    sys.exit(main())
