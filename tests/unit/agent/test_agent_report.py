"""The instance's status and its size."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from noderuntime.agent.report import HELD_BY_OTHER, LIMIT, HandlerState, NodeState, is_others, status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
READY = NodeState(3, "Ready", "Proven", kubelet="Noderuntime", switched_reason="KubeletOnNoderuntime")


def conditions(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in found["conditions"]}


def test_conditions_keep_their_last_transition_time() -> None:
    first = status(READY, {}, NOW)
    assert conditions(first)["Ready"]["status"] == "True"
    assert conditions(first)["Switched"]["reason"] == "KubeletOnNoderuntime"
    later = status(READY, first, NOW + timedelta(hours=1))
    assert conditions(later)["Ready"]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert later["lastHeartbeatTime"] == "2026-01-02T04:04:05Z"
    broken = status(replace(READY, phase="Degraded", reason="HandlerBroken"), later, NOW + timedelta(hours=2))
    assert conditions(broken)["Ready"]["lastTransitionTime"] == "2026-01-02T05:04:05Z"
    assert conditions(broken)["Switched"]["lastTransitionTime"] == "2026-01-02T03:04:05Z"


def test_status_size_is_limited() -> None:
    handlers = tuple(HandlerState(f"handler-{n}", "Broken", "HandlerBroken", "ä" * 5000) for n in range(8))
    found = status(replace(READY, phase="Degraded", message="x" * 9000, handlers=handlers), {}, NOW)
    assert len(json.dumps(found).encode()) <= LIMIT
    assert [handler["name"] for handler in found["handlers"]] == [handler.name for handler in handlers]


def test_long_version_of_a_handler_is_shortened() -> None:
    node = replace(READY, handlers=(HandlerState("runc", "Ready", version="x" * 300),))
    (reported,) = status(node, {}, NOW)["handlers"]
    assert len(reported["version"]) == 65


def test_handler_names_of_the_upstream_are_a_condition() -> None:
    first = conditions(status(READY, {}, NOW))["HandlerNamesUnique"]
    assert (first["status"], first["reason"]) == ("True", "NamesUnique")
    shared = conditions(status(replace(READY, shared_handlers=("kata", "runc")), {}, NOW))
    assert (shared["HandlerNamesUnique"]["status"], shared["Ready"]["status"]) == ("False", "True")
    assert shared["HandlerNamesUnique"]["message"].endswith("handlers of the same name: kata, runc")


def test_long_message_keeps_the_next_attempt() -> None:
    message = f"version {'e' * 16} was rolled back: {'x ' * 400}the ledger is upside down"
    failed = replace(READY, phase="Degraded", message=f"{message}; tried again at 03:05:05 UTC")
    message = conditions(status(failed, {}, NOW))["Ready"]["message"]
    assert len(message) < 520
    assert message.startswith(f"version {'e' * 16} was rolled back: x x")
    assert message.endswith("the ledger is upside down; tried again at 03:05:05 UTC")


def test_condition_messages_are_one_line() -> None:
    found = status(replace(READY, phase="Failed", message="a\n  b\tc"), {}, NOW)
    assert conditions(found)["Ready"]["message"] == "a b c"


def test_outline_ignores_the_times_of_probes() -> None:
    one = replace(READY, handlers=(HandlerState("r", "Ready", probed=NOW),))
    two = replace(READY, handlers=(HandlerState("r", "Ready", probed=NOW + timedelta(minutes=1)),))
    assert one != two
    assert one.outline() == two.outline()


def test_status_without_a_generation_keeps_the_reported_one() -> None:
    first = status(replace(READY, image="image:1"), {}, NOW)
    assert (first["observedGeneration"], first["agentImage"]) == (3, "image:1")
    later = status(replace(READY, generation=None, image="image:2"), first, NOW)
    assert (later["observedGeneration"], later["agentImage"]) == (3, "image:2")
    assert {c["observedGeneration"] for c in later["conditions"]} == {3}


def test_waiting_agent_reports_only_if_the_holder_is_silent() -> None:
    held = replace(READY, phase="Failed", reason=HELD_BY_OTHER)
    theirs = status(READY, {}, NOW)
    assert is_others(held, theirs, NOW + timedelta(minutes=20))
    assert not is_others(held, theirs, NOW + timedelta(minutes=30))
    assert not is_others(held, {}, NOW)
    assert not is_others(READY, theirs, NOW)
