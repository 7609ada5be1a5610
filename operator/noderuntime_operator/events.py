"""Events of NodeRuntimes: a condition that says something new is also told as an Event."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

from noderuntime_operator.api import API_VERSION, Condition, NodeRuntimeStatus
from noderuntime_operator.kube import FIELD_MANAGER, Json, Kube, KubeError
from noderuntime_operator.observation import RuntimeView

log = logging.getLogger(__name__)

NAMESPACE = "default"
"""Where Kubernetes keeps the events of objects that have no namespace."""

_MESSAGE_LIMIT = 1024


async def announce(kube: Kube, runtime: RuntimeView, new: NodeRuntimeStatus) -> None:
    """Post what is new in the conditions. An event that cannot be posted stops nothing."""
    for condition in news(runtime.status, new):
        try:
            await kube.create(event(runtime, condition, datetime.now(UTC)))
        except KubeError as error:
            log.warning("event not posted", extra={"noderuntime": runtime.name, "error": str(error)})


def news(old: NodeRuntimeStatus, new: NodeRuntimeStatus) -> Iterator[Condition]:
    """Yield the conditions with a new status or reason. Progress and "not degraded" are no news."""
    told = {condition.type: (condition.status, condition.reason) for condition in old.conditions or ()}
    for condition in new.conditions or ():
        quiet = condition.type == "Progressing" or (condition.type, condition.status) == ("Degraded", "False")
        if not quiet and told.get(condition.type) != (condition.status, condition.reason):
            yield condition


def event(runtime: RuntimeView, condition: Condition, now: datetime) -> Json:
    """Return the Event of a condition."""
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    warning = condition.type == "Degraded" or condition.reason == "PodsStillRunning"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{runtime.name}.{secrets.token_hex(8)}", "namespace": NAMESPACE},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "NodeRuntime",
            "name": runtime.name,
            "uid": runtime.uid,
            "resourceVersion": runtime.resource_version,
        },
        "type": "Warning" if warning else "Normal",
        "reason": condition.reason,
        "message": condition.message[:_MESSAGE_LIMIT],
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
