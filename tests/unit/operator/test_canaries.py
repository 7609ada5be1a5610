"""What `helm test` says about a canary pod that does not run."""

from __future__ import annotations

from typing import Any

import pytest

from noderuntime_operator.canaries import explanation

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
