"""UpdatePodSandboxResources: what a pod is to have all in all."""

from __future__ import annotations

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.spec.limits import check_limits


async def update_pod_sandbox_resources(
    parts: Parts,
    sandbox_id: str,
    overhead: api_pb2.LinuxContainerResources,
    resources: api_pb2.LinuxContainerResources,
) -> None:
    """Take note of a pod's new limits (CRI UpdatePodSandboxResources).

    They are set on the pod's cgroup, which is the kubelet's; PodSandboxStatus tells them to who asks for all.
    If they cannot be recorded, the old ones stay.
    """
    sandbox = parts.ledger.sandboxes.get(sandbox_id)
    check_limits(overhead)
    check_limits(resources)
    async with parts.work.lock(sandbox.id):
        before, sandbox.config = sandbox.config, api_pb2.PodSandboxConfig()
        sandbox.config.CopyFrom(before)
        sandbox.config.linux.overhead.CopyFrom(overhead)
        sandbox.config.linux.resources.CopyFrom(resources)
        try:
            await parts.ledger.sandboxes.save(sandbox)
        except BaseException:
            sandbox.config = before
            raise
