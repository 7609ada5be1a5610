"""Giving back what a sandbox holds: each step is idempotent, and used by stop, by undo and by recovery."""

from __future__ import annotations

import posixpath
from pathlib import Path

from noderuntime.core.errors import ToolError
from noderuntime.lifecycle.containers.pod import cgroup_of
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.root import needs_root, remove_root
from noderuntime.node.host.cgroup_names import monitor_cgroup
from noderuntime.node.host.words import one_line

_SYSTEMD_TIMEOUT = 30.0
_NOT_LOADED = 5
"""systemctl's exit status for a unit that is not there."""


async def root(parts: Parts, sandbox: Sandbox) -> None:
    """End the root container, where there is one."""
    if needs_root(parts, sandbox):
        await remove_root(parts, sandbox)


async def detach(parts: Parts, sandbox: Sandbox) -> None:
    """Take the sandbox off the pod network."""
    if sandbox.netns:
        pin = Path(sandbox.netns)
        if not await parts.host.mounted([pin]):
            # Where the pinning was cut off there is an empty file, which plugins take for a namespace.
            await parts.host.unpin_namespaces([pin])
        await parts.network.detach(sandbox.id, sandbox.netns, sandbox.config, sandbox.cni_result)


async def unpin(parts: Parts, sandbox: Sandbox) -> None:
    """Let the namespaces and the pod's /dev/shm go."""
    paths = parts.paths.sandbox(sandbox.id)
    await parts.host.unpin_namespaces(paths.pins)
    await parts.host.unmount(paths.shm)


async def remove_cgroups(parts: Parts, sandbox: Sandbox) -> None:
    """Remove the cgroup of the monitors, and the pod's own when it is not the kubelet's."""
    pod = cgroup_of(parts, sandbox)
    await parts.host.remove_cgroup(monitor_cgroup(pod))
    if not sandbox.config.linux.cgroup_parent:
        if parts.cgroup_driver == "systemd":
            await _stop_slice(parts, posixpath.basename(pod))
        await parts.host.remove_cgroup(pod)


async def _stop_slice(parts: Parts, name: str) -> None:
    """Have systemd forget a slice that it made for the first scope in it, if there ever was one."""
    argv = ["systemctl", "--no-ask-password", "stop", name]
    done = await parts.host.run(argv, timeout=_SYSTEMD_TIMEOUT)
    if done.returncode not in (0, _NOT_LOADED):
        words = one_line(done.stderr.decode(errors="replace"))
        raise ToolError("systemctl", "stop", done.returncode, words)
