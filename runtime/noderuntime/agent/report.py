"""What the agent says of its node: the instance's status. Pure.

At most :data:`LIMIT` bytes, however long the tools' words are. Conditions keep their
``lastTransitionTime`` as long as their status stays the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

LIMIT = 2048
_MESSAGE_LIMIT = 256

Phase = Literal["Pending", "Installing", "Switching", "Ready", "Degraded", "Removing", "Removed", "Failed"]


@dataclass(frozen=True, slots=True)
class HandlerState:
    """A handler, as its last canary showed it."""

    name: str
    state: Literal["Ready", "Broken", "Unknown"] = "Unknown"
    reason: str = "NotProbed"
    message: str = ""
    version: str | None = None
    probed: datetime | None = None


@dataclass(frozen=True, slots=True)
class NodeState:
    """All that the agent knows of its node."""

    generation: int
    phase: Phase
    reason: str
    message: str = ""
    digest: str | None = None
    version: str | None = None
    kubelet: Literal["Upstream", "Noderuntime"] = "Upstream"
    configured_by: str | None = None
    upstream_socket: str | None = None
    switched_reason: str = "NotSwitched"
    handlers: tuple[HandlerState, ...] = ()

    def outline(self) -> NodeState:
        """Return what makes a transition: everything but the times of probes."""
        return replace(self, handlers=tuple(replace(one, probed=None) for one in self.handlers))


def status(node: NodeState, before: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the whole status as a merge patch (null clears a field); before is the API server's."""
    limit = _MESSAGE_LIMIT
    while True:
        found = _status(node, before, now, limit)
        if len(json.dumps(found).encode()) <= LIMIT or limit == 0:
            return found
        limit //= 2


def _status(node: NodeState, before: dict[str, Any], now: datetime, limit: int) -> dict[str, Any]:
    known = {one.get("type"): one for one in before.get("conditions") or []}
    said = {
        "Ready": (node.phase == "Ready", node.reason, _short(node.message, limit)),
        "Switched": (node.kubelet == "Noderuntime", node.switched_reason, ""),
    }
    conditions = []
    for kind, (value, reason, message) in said.items():
        word = "True" if value else "False"
        last = known.get(kind, {})
        since = last.get("lastTransitionTime") if last.get("status") == word else None
        common = {"observedGeneration": node.generation, "lastTransitionTime": since or _time(now)}
        conditions.append({"type": kind, "status": word, **common, "reason": reason, "message": message})
    return {
        "observedGeneration": node.generation,
        "phase": node.phase,
        "bundleDigest": node.digest,
        "runtimeVersion": node.version,
        "kubelet": {
            "state": node.kubelet,
            "configuredBy": node.configured_by,
            "upstreamSocket": node.upstream_socket,
        },
        "handlers": [_handler(one, limit) for one in node.handlers],
        "conditions": conditions,
        "lastHeartbeatTime": _time(now),
    }


def _handler(one: HandlerState, limit: int) -> dict[str, Any]:
    found = {
        "name": one.name,
        "state": one.state,
        "reason": one.reason,
        "message": _short(one.message, limit) or None,
        "version": one.version,
        "lastProbeTime": _time(one.probed) if one.probed else None,
    }
    # A list is replaced as a whole by a merge patch: what is not set is left out.
    return {key: value for key, value in found.items() if value is not None}


def _short(message: str, limit: int) -> str:
    line = " ".join(message.split())
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
