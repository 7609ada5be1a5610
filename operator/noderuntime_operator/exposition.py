"""The HTTP endpoint of the metrics: ``GET /metrics``, on IPv4 and IPv6.

kopf's own endpoint serves the probes; it has no other paths.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4


async def serve_metrics(port: int, text: Callable[[], bytes]) -> web.AppRunner:
    """Serve metrics on all addresses until the returned runner's cleanup. OSError if the port is in use."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
