"""The stages that disturb a running operator: kills, restarts, a compaction."""

from __future__ import annotations

import asyncio
import signal
import time

from scale.client import INSTANCES, NODES
from scale.node_processes import names
from scale.requests import RequestMeter
from scale.stages import LAG_SECONDS, MEMORY_MEBIBYTES, Run, Wrong, shows

SPREAD_SECONDS = 60.0
MOST_AT_ONCE = 0.2
"""The share of the agents that can come back to a restarted API server within one second."""


async def operator_kill(run: Run) -> None:
    """Kill the operator, change nodes while it is away, and start it again."""
    world, figures = run.world, run.figures
    figures.stage("Operator killed and restarted")
    await world.operator.stop(signal.SIGKILL)
    await world.nodes.ask(do="break", nodes=run.few)
    await asyncio.sleep(2)
    began = time.time()
    await world.start_operator()
    ended = await run.until("operator's restart", shows(world.size - len(run.few), world.size))
    figures.add("status right after the start", ended - began, "s", LAG_SECONDS)
    figures.add("operator's memory at the start, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    figures.add(
        "share of the chart's memory limit", 100 * world.operator.memory() / world.chart.memory_limit, "%"
    )
    await world.nodes.ask(do="heal", nodes=run.few)
    figures.add("status right after healing", await run.lag("healing", world.size), "s", LAG_SECONDS)
    await run.check_labels(world.size)


async def apiserver_restart(run: Run) -> None:
    """Restart the API server, and change nodes while it is away."""
    world, figures = run.world, run.figures
    figures.stage("API server restarted")
    world.operator.peak()
    await asyncio.to_thread(world.control_plane.stop_apiserver)
    await world.nodes.ask(do="break", nodes=run.few)
    await asyncio.sleep(3)
    await asyncio.to_thread(world.control_plane.up_api)
    up = time.time()
    lag, reads = await asyncio.gather(
        run.lag("restart of the API server", world.size - len(run.few)), _agents_back(run, up)
    )
    figures.add("all agents are back", reads[-1] - up, "s", 2 * SPREAD_SECONDS)
    share = busiest(reads) / world.size
    figures.add("agents that came back in the busiest second", 100 * share, "%")
    figures.add("status right after the last change", lag, "s", LAG_SECONDS)
    if share > MOST_AT_ONCE:
        raise Wrong(f"{100 * share:.0f} % of the agents came back within one second")
    figures.add("operator's memory, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    await world.nodes.ask(do="heal", nodes=run.few)
    await run.lag("healing", world.size)
    await run.check_labels(world.size)


async def _agents_back(run: Run, since: float) -> tuple[float, ...]:
    """Wait until all agents watch again; return the times at which they began to, since a time."""
    deadline = time.monotonic() + run.ready_limit
    while (found := await run.world.nodes.report(since=since)).watching < run.world.size:
        if time.monotonic() > deadline:
            raise Wrong(f"{found.watching} of {run.world.size} agents watch after the restart")
        await asyncio.sleep(1)
    return found.reads


def busiest(times: tuple[float, ...]) -> int:
    """Return the largest number of times within one second."""
    most, first = 0, 0
    for last, time_ in enumerate(times):
        while times[first] < time_ - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


async def compaction(run: Run) -> None:
    """Remove Nodes while the operator's process is stopped and without a connection, and compact etcd.

    The revisions of its watches are forgotten then, so that it learns of the Nodes only from new lists.
    """
    world, figures = run.world, run.figures
    gone = names(len(run.few), first=len(run.few))
    figures.stage(f"{len(gone)} Nodes deleted behind a compaction (410)")
    world.operator.signal(signal.SIGSTOP)
    try:
        await asyncio.to_thread(world.control_plane.restart_apiserver)
        for name in gone:
            await world.api.request("DELETE", f"{NODES}/{name}")
            await world.api.request("DELETE", f"{INSTANCES}/{name}")
        await asyncio.to_thread(world.control_plane.compact)
    finally:
        requests = RequestMeter(world.control_plane.audit_log)
        world.operator.signal(signal.SIGCONT)
    world.operator.peak()
    began = time.time()
    world.size -= len(gone)
    ended = await run.until("compaction", shows(world.size, world.size))
    figures.add("status right", ended - began, "s", LAG_SECONDS)
    await asyncio.sleep(10)
    if not requests.counts()["list", "nodes"]:
        raise Wrong("the operator did not list the Nodes: this stage did not make its watches too old")
    figures.add("operator's memory at the lists, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    await run.until("after the compaction", shows(world.size, world.size))
    await run.check_labels(world.size)
