"""The stages of a run. Each one ends with a right status, or raises Wrong."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from scale.client import INSTANCES, NODES, RUNTIMES, Json
from scale.crowd import names
from scale.figures import Figures
from scale.objects import HANDLERS, node_runtime
from scale.operator_process import CpuMeter
from scale.requests import RequestMeter
from scale.watching import Truth
from scale.world import World, pretty

READY_SECONDS, LAG_SECONDS = 120.0, 30.0
MEMORY_MEBIBYTES, STEADY_CORES = 200.0, 0.05
WRITES_PER_SECOND, READS_PER_SECOND = 10.0, 20.0
SPREAD_SECONDS = 60.0
CROWD = 0.2
"""The share of the agents that can come back to a restarted API server within one second."""
_POLL_SECONDS = 0.25


class Wrong(AssertionError):
    """The operator did not do what it must: wrong status, a lost label, or no end."""


@dataclass
class Run:
    """A run and the sizes of its stages."""

    world: World
    figures: Figures
    ready_limit: float
    """Seconds after which a stage that does not converge fails."""
    steady_seconds: float
    storm_seconds: float

    @property
    def few(self) -> list[str]:
        """One percent of the nodes."""
        return names(max(5, self.world.size // 100))

    async def until(self, what: str, right: Callable[[Json], bool], limit: float = 0) -> float:
        """Wait for a status; return the machine's time at which it was there. Raises Wrong."""
        deadline = time.monotonic() + (limit or self.ready_limit)
        while not right(status := await self.world.status()):
            if time.monotonic() > deadline:
                raise Wrong(f"{what}: not within {limit or self.ready_limit:g} s: {pretty(status)}")
            await asyncio.sleep(_POLL_SECONDS)
        return time.time()

    async def check_labels(self, nodes: int) -> None:
        """Raise Wrong unless all Nodes have all handler labels and none was lost meanwhile."""
        guard, deadline = self.world.guard, time.monotonic() + 60
        while guard.complete(len(HANDLERS)) != nodes:
            if time.monotonic() > deadline:
                raise Wrong(f"{guard.complete(len(HANDLERS))} of {nodes} Nodes have all handler labels")
            await asyncio.sleep(_POLL_SECONDS)
        if guard.lost:
            raise Wrong(f"{len(guard.lost)} Nodes lost handler labels: {'; '.join(guard.lost[:5])}")

    async def lag(self, what: str, ready: int, limit: float = 0) -> float:
        """Wait for that number of ready nodes; return the seconds since the last report of an agent."""
        shown = await self.until(what, shows(ready, self.world.size), limit)
        return max(0.0, shown - (await self.world.crowd.report()).last_report)


def shows(ready: int, desired: int) -> Callable[[Json], bool]:
    """Return a check of a status: the counts, and the condition Ready."""

    def check(status: Json) -> bool:
        conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        counts = status.get("readyNodes"), status.get("desiredNodes")
        return counts == (ready, desired) and conditions["Ready"] == str(ready == desired)

    return check


async def install(run: Run) -> None:
    """Create the NodeRuntime and wait until all nodes are Ready."""
    world, figures = run.world, run.figures
    figures.stage(f"Installation on {world.size} nodes")
    await world.start_operator()
    await asyncio.sleep(5)
    figures.add(
        "operator's memory at the start, no instances", world.operator.peak(), "MiB", MEMORY_MEBIBYTES
    )
    requests, cpu, began = RequestMeter(world.plane.audit_log), CpuMeter(world.operator), time.time()
    runtime = node_runtime(max(1, world.size // 10))
    await world.api.request("POST", RUNTIMES, runtime, fieldValidation="Strict")
    lag = await run.lag("installation", world.size)
    took = time.time() - began
    writes, reads = requests.writes_and_reads()
    figures.add("all nodes Ready", took, "s", READY_SECONDS)
    figures.add("status right after the last change", lag, "s", LAG_SECONDS)
    figures.add("operator's CPU time per node", cpu.cores() * took / world.size * 1000, "ms")
    figures.add("operator's writes per node", writes / world.size, "requests")
    figures.add("operator's reads", reads, "requests")
    figures.add("operator's memory, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    await run.check_labels(world.size)


async def steady(run: Run) -> None:
    """Measure the operator while nothing but heartbeats happens."""
    world, figures = run.world, run.figures
    figures.stage(f"Steady state, {run.steady_seconds:g} s")
    await asyncio.sleep(5)
    requests, cpu = RequestMeter(world.plane.audit_log), CpuMeter(world.operator)
    world.operator.peak()
    await asyncio.sleep(run.steady_seconds)
    writes, reads = requests.writes_and_reads()
    figures.add("operator's CPU", cpu.cores(), "cores", STEADY_CORES)
    figures.add("operator's writes", writes / run.steady_seconds, "requests/s", WRITES_PER_SECOND)
    figures.add("operator's reads", reads / run.steady_seconds, "requests/s", READS_PER_SECOND)
    figures.add("operator's memory in steady state", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    await run.until("steady state", shows(world.size, world.size))


async def storm(run: Run) -> None:
    """Let one percent of the nodes flap, and compare the status with the truth meanwhile."""
    world, figures = run.world, run.figures
    figures.stage(f"Storm: {len(run.few)} nodes flap for {run.storm_seconds:g} s")
    requests, cpu = RequestMeter(world.plane.audit_log), CpuMeter(world.operator)
    lags: list[float] = []
    async with Truth(world.api) as truth:
        until = time.time() + run.storm_seconds
        await world.crowd.ask(do="flap", nodes=run.few, every=3.0, until=until)
        while time.time() < until:
            await asyncio.sleep(0.5)
            lags.append(truth.lag((await world.status()).get("readyNodes", -1)))
        await asyncio.sleep(6)
        last = await run.lag("end of the storm", world.size)
    writes, _ = requests.writes_and_reads()
    figures.add("status behind the truth, longest", max(lags), "s", LAG_SECONDS)
    figures.add("status right after the last change", last, "s", LAG_SECONDS)
    figures.add("operator's CPU", cpu.cores(), "cores")
    figures.add("operator's writes", writes / run.storm_seconds, "requests/s", WRITES_PER_SECOND)
    if max(lags) > 2 * LAG_SECONDS:
        raise Wrong(f"the status was {max(lags):.0f} s behind during the storm")
    await run.check_labels(world.size)


async def operator_kill(run: Run) -> None:
    """Kill the operator, change nodes while it is away, and start it again."""
    world, figures = run.world, run.figures
    figures.stage("Operator killed and restarted")
    await world.operator.stop(signal.SIGKILL)
    await world.crowd.ask(do="break", nodes=run.few)
    await asyncio.sleep(2)
    began = time.time()
    await world.start_operator()
    ended = await run.until("operator's restart", shows(world.size - len(run.few), world.size))
    figures.add("status right after the start", ended - began, "s", LAG_SECONDS)
    figures.add("operator's memory at the start, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    figures.add(
        "share of the chart's memory limit", 100 * world.operator.memory() / world.chart.memory_limit, "%"
    )
    await world.crowd.ask(do="heal", nodes=run.few)
    figures.add("status right after healing", await run.lag("healing", world.size), "s", LAG_SECONDS)
    await run.check_labels(world.size)


async def apiserver_restart(run: Run) -> None:
    """Restart the API server, and change nodes while it is away."""
    world, figures = run.world, run.figures
    figures.stage("API server restarted")
    world.operator.peak()
    await asyncio.to_thread(world.plane.stop_apiserver)
    await world.crowd.ask(do="break", nodes=run.few)
    await asyncio.sleep(3)
    await asyncio.to_thread(world.plane.up_api)
    up = time.time()
    lag, reads = await asyncio.gather(
        run.lag("restart of the API server", world.size - len(run.few)), _agents_back(run, up)
    )
    figures.add("all agents are back", reads[-1] - up, "s", 2 * SPREAD_SECONDS)
    crowd = busiest(reads) / world.size
    figures.add("agents that came back in the busiest second", 100 * crowd, "%")
    figures.add("status right after the last change", lag, "s", LAG_SECONDS)
    if crowd > CROWD:
        raise Wrong(f"{100 * crowd:.0f} % of the agents came back within one second")
    figures.add("operator's memory, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    await world.crowd.ask(do="heal", nodes=run.few)
    await run.lag("healing", world.size)
    await run.check_labels(world.size)


async def _agents_back(run: Run, since: float) -> tuple[float, ...]:
    """Wait until all agents watch again; return the times at which they began to, since a time."""
    deadline = time.monotonic() + run.ready_limit
    while (found := await run.world.crowd.report(since=since)).watching < run.world.size:
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
        await asyncio.to_thread(world.plane.restart_apiserver)
        for name in gone:
            await world.api.request("DELETE", f"{NODES}/{name}")
            await world.api.request("DELETE", f"{INSTANCES}/{name}")
        await asyncio.to_thread(world.plane.compact)
    finally:
        requests = RequestMeter(world.plane.audit_log)
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
