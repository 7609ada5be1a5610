"""UpdatePodSandboxResources: record a pod's total resources."""

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
    """Record a pod's new limits (CRI UpdatePodSandboxResources).

    The kubelet itself sets them on the pod's cgroup; a verbose PodSandboxStatus reports them. After an error
    the record has the old limits.
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
