"""Pod metrics of the node: ours and the upstream's under the same names, so that one reader takes both.

A reader learns the labels of each metric once, and from then on takes values by their place. So what
the upstream has described stands, and ours are put into its order. An upstream that knows no metrics
has none, and that is no failure: unlike a pod that is missing in a list, nobody acts on it.
"""

from __future__ import annotations

import asyncio

import grpc

from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.upstream import Upstream, UpstreamStatus
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.metrics import list_pod_sandbox_metrics
from noderuntime.lifecycle.stats.metrics.values import LabelKeys, descriptors

_SERVICE = "/runtime.v1.RuntimeService"
_UPSTREAM_SECONDS = 30.0


class MetricsService:
    """The verbs about metrics."""

    def __init__(self, parts: Parts, upstream: Upstream | None) -> None:
        self._parts = parts
        self._upstream = upstream
        self._order: LabelKeys | None = None if upstream else {}

    async def ListMetricDescriptors(
        self, request: api_pb2.ListMetricDescriptorsRequest
    ) -> api_pb2.ListMetricDescriptorsResponse:
        """CRI ListMetricDescriptors: the upstream's, and those of ours that it does not have."""
        theirs = await self._described()
        names = {one.name for one in theirs.descriptors}
        return api_pb2.ListMetricDescriptorsResponse(
            descriptors=[*theirs.descriptors, *(one for one in descriptors() if one.name not in names)]
        )

    async def ListPodSandboxMetrics(
        self, request: api_pb2.ListPodSandboxMetricsRequest
    ) -> api_pb2.ListPodSandboxMetricsResponse:
        """CRI ListPodSandboxMetrics: the upstream's pods, and ours."""
        ours, reply = await asyncio.gather(self._ours(), self._ask("ListPodSandboxMetrics", request))
        response = api_pb2.ListPodSandboxMetricsResponse.FromString(reply)
        response.pod_metrics.extend(ours)
        return response

    async def StreamPodSandboxMetrics(
        self, request: api_pb2.StreamPodSandboxMetricsRequest
    ) -> api_pb2.StreamPodSandboxMetricsResponse:
        """CRI StreamPodSandboxMetrics: our part of it."""
        return api_pb2.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=await self._ours())

    async def _ours(self) -> list[api_pb2.PodSandboxMetrics]:
        if self._order is None:
            await self._described()
        return await list_pod_sandbox_metrics(self._parts, self._order or {})

    async def _described(self) -> api_pb2.ListMetricDescriptorsResponse:
        """Ask the upstream for its metrics, and remember their labels."""
        reply = await self._ask("ListMetricDescriptors", api_pb2.ListMetricDescriptorsRequest())
        theirs = api_pb2.ListMetricDescriptorsResponse.FromString(reply)
        self._order = {one.name: tuple(one.label_keys) for one in theirs.descriptors}
        return theirs

    async def _ask(
        self,
        call: str,
        request: api_pb2.ListMetricDescriptorsRequest | api_pb2.ListPodSandboxMetricsRequest,
    ) -> bytes:
        """Ask the upstream; nothing from one that does not know the call, or where there is none."""
        if self._upstream is None:
            return b""
        try:
            asked = self._upstream.unary(
                f"{_SERVICE}/{call}", request.SerializeToString(), timeout=_UPSTREAM_SECONDS
            )
            return (await asked.reply()).body
        except UpstreamStatus as error:
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                return b""
            raise
