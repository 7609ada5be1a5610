"""The composition root: builds the daemon's parts from its configuration and connects them.

The order of a start: the socket is free, the ledger is ours, the parts are built, what died is recorded,
processes are supervised, calls are served, systemd is informed. What died is torn down meanwhile.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from noderuntime.config import Config, ImagesConfig, load
from noderuntime.core import diagnosis, log, tasks
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import FailedPrecondition, InvalidArgument
from noderuntime.core.paths import Paths
from noderuntime.edge.router.cgroup_driver import cgroup_driver
from noderuntime.edge.router.router import Router
from noderuntime.edge.router.upstream import Upstream
from noderuntime.edge.server.dispatch import Dispatcher, Extra, verbs_of
from noderuntime.edge.server.exposition import serve_metrics
from noderuntime.edge.server.image_service import ImageService
from noderuntime.edge.server.listen import make_way
from noderuntime.edge.server.metrics_service import MetricsService
from noderuntime.edge.server.node_service import NodeService
from noderuntime.edge.server.runtime_service import RuntimeService
from noderuntime.edge.server.serve import on_signals, serve
from noderuntime.edge.server.store_service import StoreService
from noderuntime.edge.server.subjects import with_subjects
from noderuntime.edge.server.watchdog import report_alive
from noderuntime.edge.streaming.server import StreamingServer
from noderuntime.images.backends.containerd import ContainerdBackend
from noderuntime.images.backends.containerd_client import ContainerdClient
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.base import ImageBackend
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.metrics.base import Metrics
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.network_garbage import collect_network_garbage
from noderuntime.lifecycle.recovery import boot_id, recover, tear_down
from noderuntime.lifecycle.reload import reload_on
from noderuntime.lifecycle.stats.cgroup_sample import CgroupReader
from noderuntime.lifecycle.stats.collect import StatsCollector
from noderuntime.lifecycle.stats.layers import WritableLayers
from noderuntime.lifecycle.supervisor import Supervisor
from noderuntime.lifecycle.used_handlers import with_used
from noderuntime.node.executor.handlers import executors
from noderuntime.node.executor.probes import Probes
from noderuntime.node.host import apparmor, open_files
from noderuntime.node.host.base import Host
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.sdnotify import extend_start
from noderuntime.node.monitor.conmon import ConmonMonitor
from noderuntime.node.network.cni import CniNetwork
from noderuntime.node.spec.cdi.catalog import Catalog
from noderuntime.node.spec.facts import read_facts

_STDERR = 2
_IMAGES = "images"
_DRAIN_SECONDS = 0.5
"""How long verbs whose callers were cut off may continue, without a socket. Recovery undoes the rest."""


async def run(path: Path) -> None:
    """Run the daemon until SIGTERM. SIGHUP reloads the configuration.

    Raises a NoderuntimeError if it cannot start.
    """
    config = load(path)
    log.configure(config.log.level)
    open_files.raise_limit()
    stop, hangup = on_signals(signal.SIGTERM, signal.SIGINT), on_signals(signal.SIGHUP)
    _report_on(signal.SIGUSR1)
    await FILES.run(make_way, config.server.socket)
    async with AsyncExitStack() as stack:
        metrics = _metrics(config)
        stack.push_async_callback(metrics.close)
        upstream = _upstream(config, metrics)
        if upstream is not None:
            stack.push_async_callback(upstream.close)
        async with tasks.Scope() as starting:
            starting.start(extend_start(), name="extend the start's timeout")
            parts = await stack.enter_async_context(_parts(config, upstream, metrics))
            await recover(parts, boot_id())
        streams = StreamingServer(config.streaming)
        stack.push_async_callback(streams.stop)
        await streams.start()
        await stack.enter_async_context(serve_metrics(config.metrics.endpoint, metrics.text))
        await stack.enter_async_context(
            _meanwhile(reload_on(hangup, parts, path), on_end=stop.set, name="reload at SIGHUP")
        )
        await stack.enter_async_context(
            _meanwhile(report_alive(diagnosis.report), on_end=stop.set, name="report to the watchdog")
        )
        with Supervisor(parts):
            tearing_down = parts.work.background(tear_down(parts), name="tear down what died")
            if upstream is None:  # whose pods are on the same network, and not in our ledger
                collecting = collect_network_garbage(parts, after=tearing_down)
                await stack.enter_async_context(
                    _meanwhile(collecting, on_end=stop.set, name="collect the network's garbage")
                )
            await serve(_dispatcher(parts, streams, upstream), config.server.socket, stop)
        await parts.retries.close()
        await parts.work.drain(_DRAIN_SECONDS)


def _report_on(signo: signal.Signals) -> None:
    """Log the daemon's state when the signal arrives; the threads' stacks even if the event loop hangs."""
    asyncio.get_running_loop().add_signal_handler(signo, diagnosis.report)
    faulthandler.register(signo, file=_STDERR, all_threads=True, chain=True)


def _metrics(config: Config) -> Metrics:
    metrics = Metrics()
    if config.metrics.endpoint is not None:
        from noderuntime.lifecycle.metrics.prometheus import Prometheus  # noqa: PLC0415 - takes 2 MiB

        metrics = Prometheus()
    if config.tracing.endpoint is None:
        return metrics
    try:
        from noderuntime.lifecycle.metrics.tracing import Traced  # noqa: PLC0415 - takes 20 MiB
    except ImportError as error:
        raise FailedPrecondition(
            f"tracing.endpoint needs the packages of noderuntime[tracing]: {error}"
        ) from error
    return Traced(metrics, config.tracing.endpoint)


def _upstream(config: Config, metrics: Metrics) -> Upstream | None:
    if config.upstream is None:
        return None
    if os.path.realpath(config.upstream.socket) == os.path.realpath(config.server.socket):
        raise InvalidArgument(f"upstream.socket {config.upstream.socket} is the daemon's own socket")
    return Upstream(config.upstream.socket, metrics.upstream_failed)


@asynccontextmanager
async def _parts(config: Config, upstream: Upstream | None, metrics: Metrics) -> AsyncIterator[Parts]:
    """Build the parts that the verbs use."""
    run_dir = config.server.run_dir
    exit_dir, persist_dir = run_dir / "exits", run_dir / "persist"
    for directory in (exit_dir, persist_dir):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, paths = LinuxHost(), Paths(run_dir)
    async with AsyncExitStack() as stack:
        ledger = Ledger(config.server.state_dir)
        stack.push_async_callback(ledger.close)
        metrics.watch(ledger)
        config = await with_used(config, ledger)
        images, configure_images = await stack.enter_async_context(_images(config, host))
        driver = await cgroup_driver(config.server.cgroup_driver, upstream, ledger)
        layers = WritableLayers(images.usage, images.filesystem)
        stack.push_async_callback(layers.close)
        handlers = executors(config, host, systemd_cgroup=driver == "systemd")
        facts = read_facts(
            seccomp_profile=config.tools.seccomp_profile, apparmor=await apparmor.prepare(host)
        )
        yield Parts(
            config=config,
            paths=paths,
            ledger=ledger,
            host=host,
            executors=handlers,
            probes=Probes(handlers, user_namespaces=facts.user_namespaces),
            facts=facts,
            monitor=ConmonMonitor(host, config.tools.conmon, exit_dir, persist_dir),
            images=images,
            network=CniNetwork(host, config.network.conf_dir, config.network.plugin_dirs, paths),
            stats=StatsCollector(CgroupReader(host.cgroup_version()), driver, layers),
            cdi=Catalog(config.devices.cdi_dirs),
            cgroup_driver=driver,
            metrics=metrics,
            configure_images=configure_images,
        )


@asynccontextmanager
async def _images(
    config: Config, host: Host
) -> AsyncIterator[tuple[ImageBackend, Callable[[ImagesConfig], None]]]:
    """Open the configured image backend. Yields it and the function that reconfigures it."""
    if config.images.backend == "native":
        from noderuntime.images.backends.open_native import open_native  # noqa: PLC0415 - others do without 20 MiB

        root = config.server.state_dir / _IMAGES
        async with open_native(config.images, root, host, boot_id()) as native:
            yield native
        return
    client = ContainerdClient(config.images.containerd_socket, config.images.namespace)
    backend = ContainerdBackend(host, client, config.images.snapshotter)
    try:
        yield backend, lambda _: None  # no setting of it can change in a running daemon
    finally:
        await backend.close()


@asynccontextmanager
async def _meanwhile(
    work: Coroutine[Any, Any, None], on_end: Callable[[], None], *, name: str
) -> AsyncIterator[None]:
    """Run work that never ends while the context is entered.

    If it ends by itself, call ``on_end``, and raise its error when the context is left.
    """
    task = tasks.start(work, name=name)
    task.add_done_callback(lambda _task: on_end())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _dispatcher(parts: Parts, streams: StreamingServer, upstream: Upstream | None) -> Dispatcher:
    node = NodeService(parts.probes, parts.network, upstream, parts.cgroup_driver)
    pods = RuntimeService(parts, streams)
    services: list[object] = [pods, node, MetricsService(parts, upstream)]
    extra: Mapping[str, Extra] = {}
    if isinstance(parts.images, NativeBackend):
        parts.metrics.watch_pulls(parts.images.counters)
        services.append(ImageService(parts.images))
        extra = StoreService(parts.images).calls()
    router = Router(parts.ledger.sandboxes, parts.ledger.containers, parts.executors, upstream)
    verbs = with_subjects(verbs_of(*services), parts.ledger)
    return Dispatcher(router, verbs, pods.events, parts.metrics, extra)
