"""CRI's pod metrics of the node: those of our pods and of the upstream's, under the same names.

A client reads the labels of each metric once and then identifies values by their position. Our values
therefore have the order of the upstream's descriptors. An upstream without metrics is not an error: unlike
a pod that is missing in a list, missing metrics cause no action.
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
    """The metrics calls of RuntimeService."""

    def __init__(self, parts: Parts, upstream: Upstream | None) -> None:
        self._parts = parts
        self._upstream = upstream
        self._order: LabelKeys | None = None if upstream else {}

    async def ListMetricDescriptors(
        self, request: api_pb2.ListMetricDescriptorsRequest
    ) -> api_pb2.ListMetricDescriptorsResponse:
        """CRI ListMetricDescriptors: the upstream's descriptors, and ours for metrics that it lacks."""
        theirs = await self._described()
        names = {one.name for one in theirs.descriptors}
        return api_pb2.ListMetricDescriptorsResponse(
            descriptors=[*theirs.descriptors, *(one for one in descriptors() if one.name not in names)]
        )

    async def ListPodSandboxMetrics(
        self, request: api_pb2.ListPodSandboxMetricsRequest
    ) -> api_pb2.ListPodSandboxMetricsResponse:
        """CRI ListPodSandboxMetrics: metrics of the upstream's pods and ours."""
        ours, reply = await asyncio.gather(self._ours(), self._ask("ListPodSandboxMetrics", request))
        response = api_pb2.ListPodSandboxMetricsResponse.FromString(reply)
        response.pod_metrics.extend(ours)
        return response

    async def StreamPodSandboxMetrics(
        self, request: api_pb2.StreamPodSandboxMetricsRequest
    ) -> api_pb2.StreamPodSandboxMetricsResponse:
        """CRI StreamPodSandboxMetrics: metrics of our pods."""
        return api_pb2.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=await self._ours())

    async def _ours(self) -> list[api_pb2.PodSandboxMetrics]:
        if self._order is None:
            await self._described()
        return await list_pod_sandbox_metrics(self._parts, self._order or {})

    async def _described(self) -> api_pb2.ListMetricDescriptorsResponse:
        """Return the upstream's descriptors and remember the order of their labels."""
        reply = await self._ask("ListMetricDescriptors", api_pb2.ListMetricDescriptorsRequest())
        theirs = api_pb2.ListMetricDescriptorsResponse.FromString(reply)
        self._order = {one.name: tuple(one.label_keys) for one in theirs.descriptors}
        return theirs

    async def _ask(
        self,
        call: str,
        request: api_pb2.ListMetricDescriptorsRequest | api_pb2.ListPodSandboxMetricsRequest,
    ) -> bytes:
        """Return the upstream's response; empty if it does not implement the call, or without an upstream."""
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
