"""An agent on a fake node with its HTTP endpoint: the agent's and the switch's real code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web
from prometheus_client.parser import text_string_to_metric_families
from unit.agent.fakenode import SPEC, FakeNode

from noderuntime.agent.loop import Loop
from noderuntime.agent.main import application
from noderuntime.agent.metrics import AgentMetrics
from noderuntime.agent.node import Node
from noderuntime.agent.systemd import Systemd


class Api:
    """An API server with one instance, which accepts every status."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def follow(self) -> AsyncIterator[dict[str, Any] | None]:
        yield {"metadata": {"generation": 1}, "spec": SPEC.model_dump(by_alias=True)}
        await asyncio.Event().wait()

    async def patch_status(self, status: dict[str, Any]) -> dict[str, Any]:
        self.reports.put_nowait(status)
        return {"status": status}

    async def reported(self, *phases: str) -> None:
        """Wait until the agent reports one of these phases."""
        async with asyncio.timeout(20):
            while (await self.reports.get())["phase"] not in phases:
                pass


class Agent:
    """An agent on a fake node, with its HTTP endpoint."""

    def __init__(self, node: FakeNode, source: Path) -> None:
        self.api = Api()
        metrics = AgentMetrics()
        reconciler = Node(node.layout, Systemd(node.host), source, metrics.probe)  # type: ignore[arg-type]
        reconciler.reprobe_seconds = 0.0
        self.loop = Loop(self.api, reconciler)  # type: ignore[arg-type]
        metrics.watch(self.loop, node.layout)
        self.runner = web.AppRunner(application(self.loop, metrics))

    @property
    def address(self) -> str:
        """Host and port of the endpoint."""
        return f"127.0.0.1:{self.runner.addresses[0][1]}"

    async def scrape(self) -> dict[str, float]:
        """Return the values by name and labels."""
        async with ClientSession() as session, session.get(f"http://{self.address}/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await answer.text()
        return {
            name + "".join(f" {key}={label}" for key, label in sorted(labels.items())): value
            for family in text_string_to_metric_families(text)
            for name, labels, value, *_ in family.samples
        }

    async def serve(self) -> None:
        """Open the endpoint, before the agent's loop runs."""
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()

    async def __aenter__(self) -> Agent:
        await self.serve()
        self.task = asyncio.create_task(self.loop.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.runner.cleanup()


async def boot(node: FakeNode) -> None:
    """Start a kubelet on containerd; the node's switch unit runs the real switch."""
    await node.boot("FlagsFile")
    node.run_switch_unit()


def bundle(directory: Path, digest: str) -> Path:
    """Return a bundle with this digest."""
    directory.mkdir()
    (directory / "BUNDLE").write_text(digest)
    return directory
