"""The sandbox's root container: pause in pods that share a PID namespace, the sentry in gVisor's pods."""

from __future__ import annotations

import signal
import time
from typing import Any

from noderuntime.core import log
from noderuntime.core.blocking import FILES, apart
from noderuntime.core.errors import DeadlineExceeded, Internal
from noderuntime.core.paths import ContainerPaths
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.build import write_spec
from noderuntime.lifecycle.containers.exits import runs
from noderuntime.lifecycle.containers.kill import KILL_SECONDS, erase, finish_monitor
from noderuntime.lifecycle.containers.pod import cgroup_of, pod_of, shares_pids
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.cgroup_names import monitor_cgroup
from noderuntime.node.monitor.base import MonitorRequest
from noderuntime.node.spec import builder

_log = log.get(__name__)

_PAUSE = ("/pause", "-P")


def needs_root(parts: Parts, sandbox: Sandbox) -> bool:
    """Return whether a sandbox has a root container."""
    return parts.executor(sandbox.handler).traits.root_container or shares_pids(sandbox.config)


async def create_root(parts: Parts, sandbox: Sandbox) -> None:
    """Create the root container. Its namespaces must be pinned."""
    executor = parts.executor(sandbox.handler)
    paths = parts.paths.container(sandbox.id)
    rootfs = parts.config.tools.pause_rootfs
    pod = pod_of(parts, sandbox)
    spec = await apart(  # it reads the seccomp profile that the pod names
        lambda: builder.root_spec(pod, rootfs, _PAUSE, parts.facts),
        what=f"look up the profiles of sandbox {sandbox.id}",
        subject=f"profiles of {sandbox.id}",
    )
    executor.adapt_spec(spec, sandbox.id, is_root=True)
    await FILES.run(_write, paths, spec)
    runtime = executor.monitor_runtime(sandbox.id, sandbox.id, is_root=True)
    request = MonitorRequest(
        container_id=sandbox.id,
        name=f"sandbox-{sandbox.config.metadata.name}"[:128],
        bundle=paths.bundle,
        runtime=runtime.path,
        runtime_flags=runtime.flags,
        cgroup=monitor_cgroup(cgroup_of(parts, sandbox)),
    )
    with parts.metrics.phase("create", sandbox.handler):
        made = await parts.monitor.create(request)
    sandbox.root, sandbox.monitor = made.process, made.monitor


async def start_root(parts: Parts, sandbox: Sandbox) -> None:
    """Start the root container."""
    with parts.metrics.phase("start", sandbox.handler):
        await parts.executor(sandbox.handler).start(sandbox.id, sandbox.id, is_root=True)


async def check_root(parts: Parts, sandbox: Sandbox) -> None:
    """Raise Internal if a sandbox's process has ended."""
    if needs_root(parts, sandbox) and not await runs(parts, sandbox.root):
        raise Internal(f"the process of sandbox {sandbox.id} ended while the sandbox was being set up")


async def kill_root(parts: Parts, sandbox: Sandbox) -> None:
    """Kill the root container's process. DeadlineExceeded describes a process that does not end."""
    executor = parts.executor(sandbox.handler)
    await executor.kill(sandbox.id, sandbox.id, signal.SIGKILL, process=sandbox.root)
    if sandbox.root is not None and not await parts.host.wait(sandbox.root, timeout=KILL_SECONDS):
        state = await parts.host.stuck(sandbox.root)
        raise DeadlineExceeded(f"sandbox {sandbox.id} did not end {KILL_SECONDS:g} s after SIGKILL: {state}")


async def remove_root(parts: Parts, sandbox: Sandbox) -> None:
    """Remove the root container and its resources. Idempotent."""
    await kill_root(parts, sandbox)
    await finish_monitor(parts, sandbox.monitor)
    await erase(parts, sandbox, sandbox.id)
    await parts.monitor.forget(sandbox.id)
    await parts.host.remove_tree(parts.paths.container(sandbox.id).bundle)


async def root_ended(parts: Parts, sandbox: Sandbox) -> None:
    """Record that a sandbox's process ended by itself: the sandbox is no longer ready."""
    if sandbox.ready:
        await record_end(parts, sandbox)
        _log.warning("the sandbox's process ended unexpectedly", sandbox=sandbox.id, handler=sandbox.handler)


async def record_end(parts: Parts, sandbox: Sandbox) -> None:
    """Record that a sandbox is no longer ready, and publish that."""
    sandbox.stopped_at = time.time_ns()
    parts.events.publish(sandbox.id, sandbox.id, api_pb2.CONTAINER_STOPPED_EVENT)
    await parts.ledger.sandboxes.save(sandbox)


def _write(paths: ContainerPaths, spec: dict[str, Any]) -> None:
    paths.bundle.mkdir(mode=0o700, parents=True)
    write_spec(paths, spec)
