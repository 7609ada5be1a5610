"""Events of NodeRuntimes: changes of conditions are also posted as Events."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from noderuntime_operator.api.base import Condition
from noderuntime_operator.api.names import API_VERSION, FIELD_MANAGER
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import RuntimeView
from noderuntime_operator.kube import Json, Kube, KubeError

log = logging.getLogger(__name__)

NAMESPACE = "default"
"""The namespace in which Kubernetes keeps the Events of cluster-scoped objects."""

_MESSAGE_LIMIT = 1024
_PROBLEMS = ("Degraded", "RolledBack")
"""Conditions that are False while nothing is wrong."""


async def post_events(kube: Kube, runtime: RuntimeView, new: NodeRuntimeStatus) -> None:
    """Post an Event for each changed condition; a failure is only logged."""
    for condition in changed_conditions(runtime.status, new):
        try:
            await _post(kube, event(runtime, condition, datetime.now(UTC)))
        except KubeError as error:
            log.warning("posting an event failed", extra={"noderuntime": runtime.name, "error": str(error)})


async def _post(kube: Kube, manifest: Json) -> None:
    """Create an Event, or count it: an Event of the same reason that exists is used again."""
    name = manifest["metadata"]["name"]
    known = await kube.get("Event", name)
    if known is None:
        await kube.create(manifest)
        return
    newer = {key: manifest[key] for key in ("message", "lastTimestamp")}
    await kube.patch("Event", name, {**newer, "count": known.get("count", 1) + 1})


def changed_conditions(old: NodeRuntimeStatus, new: NodeRuntimeStatus) -> Iterator[Condition]:
    """Yield the conditions with a new status or reason, except Progressing and the ends of problems."""
    known = {condition.type: (condition.status, condition.reason) for condition in old.conditions or ()}
    for condition in new.conditions or ():
        quiet = condition.type == "Progressing" or (
            condition.type in _PROBLEMS and condition.status == "False"
        )
        if not quiet and known.get(condition.type) != (condition.status, condition.reason):
            yield condition


def event(runtime: RuntimeView, condition: Condition, now: datetime) -> Json:
    """Return the Event of a condition. Its name follows from NodeRuntime, condition and reason."""
    subject = f"{runtime.uid} {condition.type} {condition.status} {condition.reason}"
    digest = hashlib.sha256(subject.encode()).hexdigest()[:16]
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    warning = condition.type in _PROBLEMS or condition.reason == "PodsStillRunning"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{runtime.name}.{digest}", "namespace": NAMESPACE},
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
