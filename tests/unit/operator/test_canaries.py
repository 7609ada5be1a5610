"""What `helm test` says about a canary pod that does not run."""

from __future__ import annotations

from typing import Any

import pytest
from builders import spec
from fakeapi import FakeApi

from noderuntime_operator.canaries import explanation, run_canaries
from noderuntime_operator.settings import AgentSettings

NODE_RUNTIMES = "/apis/noderuntime.dev/v1alpha1/noderuntimes"

UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"conditions": [UNSCHEDULABLE]}, "0/3 nodes are available"),
        (
            {"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{"state": PULL}]},
            "ImagePullBackOff: Back-off pulling image",
        ),
        ({"containerStatuses": [{"state": {"terminated": {"reason": "Error", "exitCode": 1}}}]}, "Error"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded"),
        ({}, "its status has no reason"),
    ],
)
def test_explanation_quotes_the_cause(status: dict[str, Any], text: str) -> None:
    assert explanation(status) == text


async def test_refused_pod_does_not_end_the_other_canaries() -> None:
    api, pods = FakeApi(), "/api/v1/namespaces/ns/pods"
    api.objects[pods] = {}
    api.put(NODE_RUNTIMES, "rt", spec=spec("open", "closed").dump())
    api.refusals["POST", pods] = [403]
    lines: list[str] = []
    async with api.serving() as kube:
        assert not await run_canaries(kube, AgentSettings(namespace="ns", image="image:1"), lines.append, 0.1)
    problems = [line.partition(": ")[2].split(":")[0] for line in sorted(lines)]
    assert sorted(problems) == [
        "the API server refused a request, or is unreachable",
        "the pod did not run within 0 s",
    ]
    assert ("DELETE", f"{pods}/noderuntime-canary-1") in api.requests
