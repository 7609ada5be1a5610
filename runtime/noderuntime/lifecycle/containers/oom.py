"""OOM kills: whether a container ended because the kernel killed a process for lack of memory.

The monitor records an OOM kill in a file, but it can end, or the container's cgroup can disappear, before it
has read the kernel's counter (systemd removes a scope with its last process). Therefore the counters are
read as well: the container's cgroup's, or if it is gone the pod's, which in cgroup v2 includes its children.
"""

from __future__ import annotations

import signal

from noderuntime.lifecycle.containers.kill import killing
from noderuntime.lifecycle.containers.pod import cgroup_of
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.cgroup_names import container_cgroup

_KILLED = 128 + signal.SIGKILL


async def note_kills(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    """Record the pod's count of OOM kills. Must be called before the container is created."""
    container.pod_oom_kills = await parts.host.cgroup_oom_kills(cgroup_of(parts, sandbox))


async def oom_killed(parts: Parts, container: Container) -> bool:
    """Return whether the container was OOM-killed.

    Its exit code must be known, and the runtime must not have deleted it yet.
    """
    if parts.monitor.oom_killed(container.id):
        return True
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    pod, owners = cgroup_of(parts, sandbox), [container.id]
    if parts.executor(sandbox.handler).traits.root_container:  # its process holds the containers' memory
        owners.append(sandbox.id)
    for owner in owners:
        if await parts.host.cgroup_oom_kills(container_cgroup(pod, owner, parts.cgroup_driver)):
            return True
    if container.exit_code != _KILLED or await parts.host.cgroup_oom_kills(pod) <= container.pod_oom_kills:
        return False
    async with killing(parts, container):  # a SIGKILL that is being sent right now may have ended it
        return not container.killed_at
