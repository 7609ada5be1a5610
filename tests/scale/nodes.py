"""``python -m scale.nodes``: one process that simulates a share of the nodes.

It does the part of the DaemonSet's controller (a pod on each claimed node, from the current template), of
the kubelet (status of pods and Nodes, ends of deleted pods) and runs the agents of its pods. Commands are
lines of JSON on standard input, each is answered by a line on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from noderuntime.core import log
from scale.agents import Agent, Journal, SharedAccess
from scale.client import NODES, Api, ApiError, Json
from scale.kubeconfig import admin
from scale.objects import NAMESPACE, RUNTIME, SHARE, node_conditions

_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_DAEMON_SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
_CLAIM = "noderuntime.dev/runtime"
_AT_ONCE = 16
_HEARTBEAT_SECONDS = 300.0
"""How often a kubelet reports a Node whose status does not change (nodeStatusReportFrequency)."""


@dataclass
class Cell:
    """One simulated node."""

    claimed: bool = False
    pod: Json | None = None
    agent: Agent | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Nodes:
    """The simulated nodes of this process."""

    def __init__(self, api: Api, access: SharedAccess, share: str) -> None:
        self._api, self._access = api, access
        self._share = f"{SHARE}={share}"
        self._label = share
        self._cells: dict[str, Cell] = {}
        self._template: Json | None = None
        self._due: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self.journal = Journal()

    def start(self) -> None:
        """Start to follow Nodes, pods and the DaemonSet."""
        work = [self._follow_daemon_set(), self._follow_nodes(), self._follow_pods(), self._heartbeats()]
        for coroutine in (*work, *(self._work() for _ in range(_AT_ONCE))):
            self._background(coroutine)

    async def answer(self, command: Json) -> Json:
        """Carry out a command of the test."""
        agents = [
            cell.agent for name in command.get("nodes", ()) if (cell := self._cells.get(name)) and cell.agent
        ]
        match command["do"]:
            case "break" | "heal":
                for agent in agents:
                    self._background(agent.set_broken(command["do"] == "break"))
            case "flap":
                for agent in agents:
                    self._background(_flap(agent, command["every"], command["until"]))
        journal = self.journal
        running = sum(cell.agent is not None for cell in self._cells.values())
        since = command.get("since", 0.0)
        return {
            "agents": running,
            "watching": journal.watching,
            "reports": journal.reports,
            "lastReport": journal.last_report,
            "reads": [at for at in journal.reads if at >= since] if since else [],
        }

    async def _follow_daemon_set(self) -> None:
        async for kind, found in self._api.follow(_DAEMON_SETS):
            for item in found["items"] if kind == "LIST" else [found]:
                self._template = None if kind == "DELETED" else item
            for name in self._cells:
                self._due.put_nowait(name)

    async def _follow_nodes(self) -> None:
        async for kind, found in self._api.follow(NODES, labels=self._share, metadata_only=True):
            if kind == "LIST":
                for name in self._cells.keys() - {item["metadata"]["name"] for item in found["items"]}:
                    self._claim(name, False)
            for item in found["items"] if kind == "LIST" else [found]:
                labels = item["metadata"].get("labels") or {}
                self._claim(item["metadata"]["name"], kind != "DELETED" and labels.get(_CLAIM) == RUNTIME)

    def _claim(self, name: str, claimed: bool) -> None:
        cell = self._cells.setdefault(name, Cell())
        if cell.claimed != claimed:
            cell.claimed = claimed
            self._due.put_nowait(name)

    async def _follow_pods(self) -> None:
        async for kind, found in self._api.follow(_PODS, labels=self._share):
            if kind == "LIST":
                for name, cell in self._cells.items():
                    cell.pod = None
                    self._due.put_nowait(name)
            for item in found["items"] if kind == "LIST" else [found]:
                name = item["spec"]["nodeName"]
                self._cells.setdefault(name, Cell()).pod = None if kind == "DELETED" else item
                self._due.put_nowait(name)

    async def _work(self) -> None:
        while True:
            name = await self._due.get()
            cell = self._cells[name]
            try:
                async with cell.lock:
                    await self._sync(name, cell)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                print(f"{name}: {error!r}", file=sys.stderr, flush=True)
                asyncio.get_running_loop().call_later(1, self._due.put_nowait, name)

    async def _sync(self, name: str, cell: Cell) -> None:
        """Take one node's pod one step further; the events of the pod continue."""
        pod = cell.pod
        if pod is None:
            await self._stop(cell)
            if cell.claimed and self._template is not None:
                cell.pod = await self._api.request("POST", _PODS, self._pod(name, self._template))
                self._due.put_nowait(name)
        elif "deletionTimestamp" in pod["metadata"] or not cell.claimed:
            await self._stop(cell)
            await self._end(pod)
        elif cell.agent is None:
            path = f"{_PODS}/{pod['metadata']['name']}/status"
            image = pod["spec"]["containers"][0]["image"]
            await self._api.request("PATCH", path, {"status": _running(image)})
            cell.agent = Agent(self._access, name, image, self.journal)

    async def _stop(self, cell: Cell) -> None:
        if cell.agent is not None:
            agent, cell.agent = cell.agent, None
            await agent.stop()

    async def _end(self, pod: Json) -> None:
        """Remove a deleted pod, as the kubelet does when its containers ended."""
        meta = pod["metadata"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        try:
            await self._api.request("DELETE", f"{_PODS}/{meta['name']}", options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def _pod(self, node: str, daemon_set: Json) -> Json:
        template, meta = daemon_set["spec"]["template"], daemon_set["metadata"]
        owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": meta["name"], "uid": meta["uid"]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{meta['name']}-{secrets.token_hex(4)}",
                "labels": {**template["metadata"]["labels"], SHARE: self._label},
                "annotations": template["metadata"].get("annotations") or {},
                "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
            },
            "spec": {**template["spec"], "nodeName": node},
        }

    async def _heartbeats(self) -> None:
        """Report every Node's status every five minutes, like its kubelet, one after the other."""
        while True:
            for name in list(self._cells):
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                body = {"status": {"conditions": node_conditions(now)}}
                with suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError):
                    await self._api.request("PATCH", f"{NODES}/{name}/status", body)
                await asyncio.sleep(_HEARTBEAT_SECONDS / max(1, len(self._cells)) * random.uniform(0.5, 1.5))
            await asyncio.sleep(1)

    def _background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print(f"a simulated node failed: {task.exception()!r}", file=sys.stderr, flush=True)
            asyncio.get_running_loop().stop()


async def _flap(agent: Agent, every: float, until: float) -> None:
    """Break and heal a handler until a time, and leave it healed."""
    while time.time() < until:
        await asyncio.sleep(every * random.uniform(0.5, 1.5))
        await agent.set_broken(not agent.node.broken)
    await agent.set_broken(False)


def _running(image: str) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    container = {
        "name": "agent",
        "image": image,
        "imageID": f"{image}@sha256:{'0' * 64}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        "containerStatuses": [container],
    }


async def _serve(options: argparse.Namespace) -> None:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    url, tls = admin(options.kubeconfig)
    async with Api(url, tls) as api:
        nodes = Nodes(api, SharedAccess(url, options.credentials), options.share)
        nodes.start()
        async for line in reader:
            print(json.dumps(await nodes.answer(json.loads(line))), flush=True)


def main() -> None:
    """Simulate nodes until standard input ends."""
    parser = argparse.ArgumentParser(prog="scale.nodes", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="the administrator's kubeconfig")
    parser.add_argument(
        "--credentials", type=Path, required=True, help="directory of the agents' token and CA"
    )
    parser.add_argument("--share", required=True, help="value of the label of this process's Nodes")
    log.configure("warning")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
