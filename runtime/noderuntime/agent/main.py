"""The entry point of ``noderuntime agent``: options, the loop, and the kubelet's probes over HTTP."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from noderuntime.agent.kube_client import Access, InstanceApi
from noderuntime.agent.layout import Layout
from noderuntime.agent.loop import Loop, is_alive
from noderuntime.agent.metrics import AgentMetrics
from noderuntime.agent.node import Node
from noderuntime.agent.systemd import Systemd
from noderuntime.core import log, loop, tasks
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument
from noderuntime.node.host.linux import LinuxHost


def run_agent(argv: Sequence[str]) -> int:
    """Run the agent until SIGTERM. The node stays unchanged then. Loop.run documents the errors."""
    options = _options(argv)
    log.configure("info")
    loop.run(_run(options))
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="noderuntime agent", description="Run the node agent until SIGTERM."
    )
    parser.add_argument(
        "--node", default=os.environ.get("NODE_NAME", ""), help="name of this node (default: $NODE_NAME)"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/host"),
        help="where the node's root filesystem is mounted (default: %(default)s)",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=Path("/opt/noderuntime/bundle"),
        help="the bundle to install (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8081, help="port of /healthz, /readyz and /metrics (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    if not options.node:
        raise InvalidArgument("the node's name is unknown: set NODE_NAME or --node")
    return options


async def _run(options: argparse.Namespace) -> None:
    layout, metrics = Layout(options.root), AgentMetrics()
    image, access = os.environ.get("NODERUNTIME_IMAGE", ""), Access.of_pod(os.environ)
    pod = f"{access.namespace()}/{os.environ.get('HOSTNAME', '')}"
    node = Node(layout, Systemd(LinuxHost()), options.bundle.resolve(), metrics.probe, image=image, pod=pod)
    api = InstanceApi(access, options.node)
    loop = Loop(api, node)
    metrics.watch(loop, layout)
    runner = web.AppRunner(application(loop, metrics), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=options.port).start()
    work = tasks.start(loop.run(), name="the agent's loop")
    for signo in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signo, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        log.get(__name__).info("the agent was stopped; the node stays unchanged")
    finally:
        await runner.cleanup()
        await api.close()


def application(loop: Loop, metrics: AgentMetrics) -> web.Application:
    """Return the HTTP application of the kubelet's probes and of Prometheus."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(status=200 if is_alive(loop) else 503)

    async def readyz(_request: web.Request) -> web.Response:
        return web.Response(status=200 if loop.settled else 503)

    async def text(_request: web.Request) -> web.Response:
        body = await FILES.run(metrics.text)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", text)
    return app
