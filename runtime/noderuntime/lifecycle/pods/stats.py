"""PodSandboxStats and ListPodSandboxStats."""

from __future__ import annotations

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.stats import pod_target
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.list import select_pod_sandboxes
from noderuntime.lifecycle.stats.collect import PodTarget


async def pod_sandbox_stats(parts: Parts, sandbox_id: str) -> api_pb2.PodSandboxStats:
    """Return the statistics of a pod and its running containers (CRI PodSandboxStats)."""
    sandbox = parts.ledger.sandboxes.get(sandbox_id)
    [stats] = await parts.stats.sandboxes([_target(parts, sandbox)])
    return stats


async def list_pod_sandbox_stats(
    parts: Parts, wanted: api_pb2.PodSandboxStatsFilter
) -> list[api_pb2.PodSandboxStats]:
    """Return the statistics of ready pods that match the filter (CRI ListPodSandboxStats)."""
    ready = api_pb2.PodSandboxFilter(
        id=wanted.id,
        label_selector=wanted.label_selector,
        state=api_pb2.PodSandboxStateValue(state=api_pb2.SANDBOX_READY),
    )
    return await parts.stats.sandboxes(
        [_target(parts, sandbox) for sandbox in select_pod_sandboxes(parts, ready)]
    )


def _target(parts: Parts, sandbox: Sandbox) -> PodTarget:
    running = [one for one in parts.ledger.containers.of(sandbox.id) if one.running]
    return pod_target(parts, sandbox, running)
