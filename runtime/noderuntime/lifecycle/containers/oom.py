"""Whether the kernel killed in a container for want of memory.

The monitor leaves a mark, but it may end, or its container's cgroup may be gone, before it has looked
(systemd removes a scope with its last process). So the kernel's own counts are asked as well: of the
cgroup, and where that is gone of the pod's, which in cgroup v2 takes in all below it.
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
    """Note what the kernel has killed in the pod by now; to be done before the container is made."""
    container.pod_oom_kills = await parts.host.cgroup_oom_kills(cgroup_of(parts, sandbox))


async def oom_killed(parts: Parts, container: Container) -> bool:
    """Tell, of a container whose exit code is known, and whose runtime has not deleted it yet."""
    if parts.monitor.oom_killed(container.id):
        return True
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    pod, owners = cgroup_of(parts, sandbox), [container.id]
    if parts.executor(sandbox.handler).traits.root_container:  # a process, which has the containers' memory
        owners.append(sandbox.id)
    for owner in owners:
        if await parts.host.cgroup_oom_kills(container_cgroup(pod, owner, parts.cgroup_driver)):
            return True
    if container.exit_code != _KILLED or await parts.host.cgroup_oom_kills(pod) <= container.pod_oom_kills:
        return False
    async with killing(parts, container):  # a SIGKILL that is being sent may be what ended it
        return not container.killed_at
