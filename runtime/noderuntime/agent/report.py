"""The status of the instance, built from the observed state of the node. Pure functions.

A status has at most :data:`LIMIT` bytes; long messages are shortened. A condition keeps its
``lastTransitionTime`` as long as its status stays the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

LIMIT = 2048
_MESSAGE_LIMIT = 512
_VERSION_LIMIT = 64

HELD_BY_OTHER = "HeldByOtherAgent"
"""The reason of an agent that changes nothing because another agent holds the node."""
_SILENT_AFTER = timedelta(minutes=25)
"""Two heartbeats were missed."""

Phase = Literal["Pending", "Installing", "Switching", "Ready", "Degraded", "Removing", "Removed", "Failed"]


@dataclass(frozen=True, slots=True)
class HandlerState:
    """The state of a handler after its last canary."""

    name: str
    state: Literal["Ready", "Broken", "Unknown"] = "Unknown"
    reason: str = "NotProbed"
    message: str = ""
    version: str | None = None
    """The version that the handler's binary reports."""
    probed: datetime | None = None


@dataclass(frozen=True, slots=True)
class NodeState:
    """The observed state of a node."""

    generation: int | None
    """The generation of the spec that the agent applies; None leaves the reported one as it is."""
    phase: Phase
    reason: str
    message: str = ""
    image: str = ""
    """The agent's own image, if it is known."""
    digest: str | None = None
    version: str | None = None
    kubelet: Literal["Upstream", "Noderuntime"] = "Upstream"
    configured_by: str | None = None
    upstream_socket: str | None = None
    switched_reason: str = "NotSwitched"
    shared_handlers: tuple[str, ...] = ()
    """Names of handlers that the node's previous runtime has too."""
    handlers: tuple[HandlerState, ...] = ()

    def outline(self) -> NodeState:
        """Return the state without the times of probes. A transition is a change of the outline."""
        return replace(self, handlers=tuple(replace(handler, probed=None) for handler in self.handlers))


def is_others(node: NodeState, before: dict[str, Any], now: datetime) -> bool:
    """Return whether to leave the status to the agent that holds the node, because it still reports."""
    heartbeat = before.get("lastHeartbeatTime")
    if node.reason != HELD_BY_OTHER or heartbeat is None:
        return False
    return now - datetime.fromisoformat(heartbeat) < _SILENT_AFTER


def status(node: NodeState, before: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the whole status as a merge patch (null clears a field). ``before`` is the current status."""
    limit = _MESSAGE_LIMIT
    while True:
        found = _status(node, before, now, limit)
        if len(json.dumps(found).encode()) <= LIMIT or limit == 0:
            return found
        limit //= 2


def _status(node: NodeState, before: dict[str, Any], now: datetime, limit: int) -> dict[str, Any]:
    observed_generation = before.get("observedGeneration") if node.generation is None else node.generation
    known = {condition.get("type"): condition for condition in before.get("conditions") or []}
    observed = {
        "Ready": (node.phase == "Ready", node.reason, _short(node.message, limit)),
        "Switched": (node.kubelet == "Noderuntime", node.switched_reason, ""),
        "HandlerNamesUnique": _names_unique(node),
    }
    conditions = []
    for kind, (value, reason, message) in observed.items():
        state = "True" if value else "False"
        last = known.get(kind, {})
        since = last.get("lastTransitionTime") if last.get("status") == state else None
        common = {"observedGeneration": observed_generation or 0, "lastTransitionTime": since or _time(now)}
        conditions.append({"type": kind, "status": state, **common, "reason": reason, "message": message})
    return {
        "observedGeneration": observed_generation,
        "phase": node.phase,
        "agentImage": node.image or None,
        "bundleDigest": node.digest,
        "runtimeVersion": node.version,
        "kubelet": {
            "state": node.kubelet,
            "configuredBy": node.configured_by,
            "upstreamSocket": node.upstream_socket,
        },
        "handlers": [_handler(handler, limit) for handler in node.handlers],
        "conditions": conditions,
        "lastHeartbeatTime": _time(now),
    }


def _names_unique(node: NodeState) -> tuple[bool, str, str]:
    """Return status, reason and message of the condition that warns of names which the upstream has too."""
    if not node.shared_handlers:
        return True, "NamesUnique", ""
    names = ", ".join(node.shared_handlers)
    return False, "UpstreamHasHandler", f"the node's previous runtime has handlers of the same name: {names}"


def _handler(handler: HandlerState, limit: int) -> dict[str, Any]:
    found = {
        "name": handler.name,
        "state": handler.state,
        "reason": handler.reason,
        "message": _short(handler.message, limit) or None,
        "version": _short(handler.version or "", _VERSION_LIMIT) or None,
        "lastProbeTime": _time(handler.probed) if handler.probed else None,
    }
    # A merge patch replaces a list as a whole, so unset fields are omitted instead of null.
    return {key: value for key, value in found.items() if value is not None}


def _short(message: str, limit: int) -> str:
    """Return the message as one line. A long one keeps its end: the cause and the next attempt."""
    line, kept = " ".join(message.split()), limit // 2
    return line if len(line) <= limit else f"{line[: limit - kept]}…{line[len(line) - kept :]}"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
