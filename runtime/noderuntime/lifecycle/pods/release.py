"""Release of a sandbox's resources. Each step is idempotent; stop, undo and recovery use them."""

from __future__ import annotations

import posixpath
from pathlib import Path

from noderuntime.core.errors import ToolError
from noderuntime.lifecycle.containers.pod import cgroup_of
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.root import needs_root, remove_root
from noderuntime.node.host.cgroup_names import monitor_cgroup
from noderuntime.node.host.messages import one_line

_SYSTEMD_TIMEOUT = 30.0
_NOT_LOADED = 5
"""systemctl's exit status for a unit that does not exist."""


async def root(parts: Parts, sandbox: Sandbox) -> None:
    """Remove the root container, if the sandbox has one."""
    if needs_root(parts, sandbox):
        await remove_root(parts, sandbox)


async def detach(parts: Parts, sandbox: Sandbox) -> None:
    """Detach the sandbox from the pod network."""
    if sandbox.netns:
        pin = Path(sandbox.netns)
        if not await parts.host.mounted([pin]):
            # An interrupted pinning leaves an empty file, which plugins would take for a namespace.
            await parts.host.unpin_namespaces([pin])
        await parts.network.detach(sandbox.id, sandbox.netns, sandbox.config, sandbox.cni_result)


async def unpin(parts: Parts, sandbox: Sandbox) -> None:
    """Unpin the namespaces and unmount the pod's /dev/shm."""
    paths = parts.paths.sandbox(sandbox.id)
    await parts.host.unpin_namespaces(paths.pins)
    await parts.host.unmount(paths.shm)


async def remove_cgroups(parts: Parts, sandbox: Sandbox) -> None:
    """Remove the cgroup of the monitors, and the pod's cgroup unless it is the kubelet's."""
    pod = cgroup_of(parts, sandbox)
    await parts.host.remove_cgroup(monitor_cgroup(pod))
    if not sandbox.config.linux.cgroup_parent:
        if parts.cgroup_driver == "systemd":
            await _stop_slice(parts, posixpath.basename(pod))
        await parts.host.remove_cgroup(pod)


async def _stop_slice(parts: Parts, name: str) -> None:
    """Stop the slice that systemd created for the first scope in it, if any."""
    argv = ["systemctl", "--no-ask-password", "stop", name]
    done = await parts.host.run(argv, timeout=_SYSTEMD_TIMEOUT)
    if done.returncode not in (0, _NOT_LOADED):
        message = one_line(done.stderr.decode(errors="replace"))
        raise ToolError("systemctl", "stop", done.returncode, message)
