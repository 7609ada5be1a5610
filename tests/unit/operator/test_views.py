"""The views of objects: small, shared, and equal unless a decision depends on the difference."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from noderuntime_operator.views import instance_view


def body(name: str = "n1", probed: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "nodeName": name,
            "runtimeName": "rt",
            "kubelet": {"mode": "Delegate", "switchTimeoutSeconds": 120},
            "handlers": [{"name": "runc", "type": "Runc"}],
        },
        "status": {
            "observedGeneration": 1,
            "phase": "Ready",
            "handlers": [{"name": "runc", "state": "Ready", "lastProbeTime": probed}],
            **status,
        },
    }


def test_views_differ_by_no_heartbeat_and_no_probe() -> None:
    old = instance_view(body(lastHeartbeatTime="2026-01-01T00:00:00Z"))
    new = instance_view(body(probed="2026-01-01T00:10:00Z", lastHeartbeatTime="2026-01-01T00:10:00Z"))
    assert old == new
    assert new.heartbeat == datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
    assert new.status.last_heartbeat_time is None


def test_equal_instances_share_their_parts() -> None:
    one, other = instance_view(body("n1")), instance_view(body("n2"))
    assert one.status is other.status
    assert one.spec.handlers is other.spec.handlers
    assert (one.spec.node_name, other.spec.node_name) == ("n1", "n2")


def test_instance_without_a_report_has_an_empty_status() -> None:
    unreported = body()
    del unreported["status"]
    found = instance_view(unreported)
    assert (found.status.phase, found.status.handlers, found.heartbeat) == (None, None, None)


@pytest.mark.parametrize("text", ["yesterday", "2026-01-01T00:00:00", ""])
def test_time_of_another_form_in_an_annotation_is_ignored(text: str) -> None:
    edited = body()
    edited["metadata"]["annotations"] = {"noderuntime.dev/taken": text}
    assert instance_view(edited).taken is None


def test_instance_belongs_to_its_node_whatever_other_owners_it_has() -> None:
    owned = body()
    owned["metadata"]["ownerReferences"] = [{"kind": "App", "uid": "a"}, {"kind": "Node", "uid": "b"}]
    assert instance_view(owned).node_uid == "b"


def test_changed_report_makes_a_different_view() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "X", "message": "broken"}
    failed = instance_view(body(conditions=[{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]))
    assert failed != instance_view(body())
    assert failed.status.conditions
    assert failed.status.conditions[0].message == "broken"
