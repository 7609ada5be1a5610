"""Metrics of both sides under one set of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from fakes import Node

from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.upstream import Reply, UpstreamStatus
from noderuntime.edge.server.metrics_service import MetricsService

DESCRIPTORS = api_pb2.ListMetricDescriptorsResponse(
    descriptors=[
        {"name": "container_memory_rss", "help": "theirs", "label_keys": ["id", "pod"]},
        {"name": "container_of_theirs"},
    ]
)
METRICS = api_pb2.ListPodSandboxMetricsResponse(pod_metrics=[{"pod_sandbox_id": "theirs"}])


class FakeUpstream:
    """Answers by the call's name."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def unary(self, path: str, request: bytes, *, timeout: float) -> FakeUpstream:
        self.asked.append(path.rpartition("/")[2])
        return self

    async def reply(self) -> Reply:
        answer = self.answers[self.asked[-1]]
        if isinstance(answer, UpstreamStatus):
            raise answer
        return Reply(answer.SerializeToString(), (), ())


@pytest.fixture
async def parts(tmp_path: Path) -> Any:
    node = Node(tmp_path)
    yield node.parts
    await node.parts.ledger.close()


async def names(service: MetricsService) -> dict[str, str]:
    reported = await service.ListMetricDescriptors(api_pb2.ListMetricDescriptorsRequest())
    assert len({one.name for one in reported.descriptors}) == len(reported.descriptors)
    return {one.name: one.help for one in reported.descriptors}


async def test_metrics_without_upstream_are_ours(parts: Any) -> None:
    service = MetricsService(parts, None)
    assert "container_cpu_usage_seconds_total" in await names(service)
    reported = await service.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest())
    assert list(reported.pod_metrics) == []


async def test_labels_have_the_order_of_the_upstreams_descriptors(parts: Any) -> None:
    upstream = FakeUpstream(ListMetricDescriptors=DESCRIPTORS, ListPodSandboxMetrics=METRICS)
    service = MetricsService(parts, upstream)  # type: ignore[arg-type]
    reported = await names(service)
    assert (reported["container_memory_rss"], "container_of_theirs" in reported) == ("theirs", True)
    assert "container_cpu_usage_seconds_total" in reported
    both = await service.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest())
    assert [one.pod_sandbox_id for one in both.pod_metrics] == ["theirs"]


async def test_upstream_without_metrics_is_no_error(parts: Any) -> None:
    unknown = UpstreamStatus(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
    upstream = FakeUpstream(ListMetricDescriptors=unknown, ListPodSandboxMetrics=unknown)
    service = MetricsService(parts, upstream)  # type: ignore[arg-type]
    assert "container_cpu_usage_seconds_total" in await names(service)
    reported = await service.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest())
    assert list(reported.pod_metrics) == []


async def test_unavailable_upstream_fails_the_metrics_call(parts: Any) -> None:
    away = UpstreamStatus(grpc.StatusCode.UNAVAILABLE, "away")
    upstream = FakeUpstream(ListMetricDescriptors=away, ListPodSandboxMetrics=away)
    service = MetricsService(parts, upstream)  # type: ignore[arg-type]
    with pytest.raises(UpstreamStatus):
        await service.ListMetricDescriptors(api_pb2.ListMetricDescriptorsRequest())
    with pytest.raises(UpstreamStatus):
        await service.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest())
