"""The stages of a run. Each one ends with a right status, or raises Wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from scale.client import RUNTIMES, Json
from scale.figures import Figures
from scale.node_processes import names
from scale.objects import HANDLERS, RUNTIME, node_runtime, update
from scale.operator_process import CpuMeter
from scale.requests import RequestMeter
from scale.watching import Truth
from scale.world import World, pretty

READY_SECONDS, LAG_SECONDS = 120.0, 30.0
MEMORY_MEBIBYTES, STEADY_CORES = 200.0, 0.05
WRITES_PER_SECOND, READS_PER_SECOND = 10.0, 20.0
WAVE = 50
NEXT_IMAGE = "registry.example.com/noderuntime:v2"
SECONDS_PER_WAVE = 60.0
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
        return max(0.0, shown - (await self.world.nodes.report()).last_report)


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
    requests, began = RequestMeter(world.control_plane.audit_log), time.time()
    before = _cpu(world)
    runtime = node_runtime(max(100, world.size // 10))
    await world.api.request("POST", RUNTIMES, runtime, fieldValidation="Strict")
    lag = await run.lag("installation", world.size)
    took = time.time() - began
    writes, reads = requests.writes_and_reads()
    figures.add("all nodes Ready", took, "s", READY_SECONDS)
    figures.add("status right after the last change", lag, "s", LAG_SECONDS)
    for name, seconds in _cpu(world).items():
        figures.add(f"CPU time per node: {name}", (seconds - before[name]) / world.size * 1000, "ms")
    figures.add("operator's writes per node", writes / world.size, "requests")
    figures.add("operator's reads", reads, "requests")
    figures.add("operator's memory, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    await run.check_labels(world.size)


def _cpu(world: World) -> dict[str, float]:
    """Return the CPU time of the programs in seconds."""
    return {
        "operator": world.operator.cpu(),
        "API server and etcd": world.control_plane.cpu(),
        "simulated nodes": world.nodes.cpu(),
    }


async def steady(run: Run) -> None:
    """Measure the operator while nothing but heartbeats happens."""
    world, figures = run.world, run.figures
    figures.stage(f"Steady state, {run.steady_seconds:g} s")
    await asyncio.sleep(5)
    requests, cpu = RequestMeter(world.control_plane.audit_log), CpuMeter(world.operator)
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
    requests, cpu = RequestMeter(world.control_plane.audit_log), CpuMeter(world.operator)
    lags: list[float] = []
    async with Truth(world.api) as truth:
        until = time.time() + run.storm_seconds
        await world.nodes.ask(do="flap", nodes=run.few, every=3.0, until=until)
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
    if not truth.failures:
        raise Wrong("no node failed during the storm")
    if max(lags) > 2 * LAG_SECONDS:
        raise Wrong(f"the status was {max(lags):.0f} s behind during the storm")
    await run.check_labels(world.size)


async def rollout(run: Run) -> None:
    """Give all nodes another image, at most fifty at a time."""
    world, figures = run.world, run.figures
    wave = max(1, min(WAVE, world.size // 10))
    figures.stage(f"Rollout of a new image, {wave} nodes at a time")
    await world.operator.stop()
    await world.api.request(
        "PATCH", f"{RUNTIMES}/{RUNTIME}", {"spec": update(wave)}, fieldValidation="Strict"
    )
    requests, began = RequestMeter(world.control_plane.audit_log), time.time()
    await world.start_operator(NEXT_IMAGE)
    cpu = CpuMeter(world.operator)
    async with Truth(world.api) as truth:
        limit = run.ready_limit + SECONDS_PER_WAVE * world.size / wave
        ended = await run.until("rollout", lambda status: _has_only(NEXT_IMAGE, status, world.size), limit)
        await run.until("after the rollout", shows(world.size, world.size))
    took = ended - began
    writes, reads = requests.writes_and_reads()
    figures.add("all nodes have the image", took, "s")
    figures.add("time per wave", took * wave / world.size, "s")
    figures.add("nodes that changed at once, most", truth.most_changing, "nodes", wave)
    figures.add("operator's CPU", cpu.cores(), "cores")
    figures.add("operator's writes", writes / took, "requests/s")
    figures.add("operator's reads", reads / took, "requests/s")
    figures.add("operator's memory, highest", world.operator.peak(), "MiB", MEMORY_MEBIBYTES)
    if not 0 < truth.most_changing <= wave:
        raise Wrong(f"{truth.most_changing} nodes changed at once, although maxUnavailable is {wave}")
    await run.check_labels(world.size)


def _has_only(image: str, status: Json, nodes: int) -> bool:
    """Return whether the rollout is complete, with that image on all nodes."""
    counts = {entry["image"]: entry["nodes"] for entry in status.get("versions") or ()}
    complete = status.get("currentRevision") == status.get("updateRevision")
    return counts == {image: nodes} and complete and status["wave"]["phase"] == "Complete"
