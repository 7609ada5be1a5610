"""Objects of the API as JSON, for the tests of kubectl's plugin."""

from __future__ import annotations

from typing import Any

from kubectl_noderuntime.facts import Facts

Json = dict[str, Any]

OWNER = "noderuntime.dev/runtime"


def condition(kind: str, status: str, reason: str = "Because", message: str = "a message") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def runtime(name: str = "default", *, paused: bool = False, deleting: bool = False, **status: Any) -> Json:
    """Return a NodeRuntime with the handlers runc and gvisor."""
    meta: Json = {"name": name}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    handlers = [{"name": "runc", "type": "Runc"}, {"name": "gvisor", "type": "GVisor"}]
    spec = {"handlers": handlers, "update": {"paused": paused}}
    return {"metadata": meta, "spec": spec, "status": status}


def instance(
    name: str, phase: str = "Ready", *, owner: str = "default", generation: int = 1, **status: Any
) -> Json:
    """Return the instance of a node whose agent has reported about generation 1."""
    found = {"observedGeneration": 1, "phase": phase, "runtimeVersion": "0.1.0", **status}
    return {
        "metadata": {"name": name, "generation": generation, "labels": {OWNER: owner}},
        "spec": {"nodeName": name, "runtimeName": owner},
        "status": found if phase else {},
    }


def handler(name: str, state: str = "Ready", message: str = "") -> Json:
    reason = "HandlerBroken" if state == "Broken" else "CanaryStarted"
    return {"name": name, "state": state, "reason": reason, "message": message, "version": "1.0"}


def runtime_class(*, owner: str | None = "default", name: str = "gvisor", removing: bool = False) -> Json:
    labels = {OWNER: owner} if owner else {}
    if removing:
        labels["noderuntime.dev/removing"] = "true"
    return {"metadata": {"name": name, "labels": labels}, "handler": "gvisor"}


def pod(
    *,
    node: str = "",
    phase: str = "Pending",
    conditions: tuple[Json, ...] = (),
    containers: tuple[Json, ...] = (),
    spec: Json | None = None,
    meta: Json | None = None,
    **status: Any,
) -> Json:
    """Return the pod shop/web with RuntimeClass gvisor."""
    chosen = {"runtimeClassName": "gvisor", **({"nodeName": node} if node else {}), **(spec or {})}
    return {
        "metadata": {"namespace": "shop", "name": "web", "uid": "1", **(meta or {})},
        "spec": chosen,
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            "containerStatuses": list(containers),
            **status,
        },
    }


def waiting(reason: str, message: str = "", **fields: Any) -> Json:
    """Return the status of the container web, which waits."""
    state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {"name": "web", "image": "example.test/web:1", "ready": False, "state": state, **fields}


def running(*, ready: bool = True) -> Json:
    return {"name": "web", "image": "example.test/web:1", "ready": ready, "state": {"running": {}}}


def warning(reason: str, message: str, at: str = "2026-01-01T00:00:00Z") -> Json:
    return {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": at}


def node(ready: str = "True") -> Json:
    return {"status": {"conditions": [condition("Ready", ready, "KubeletStopped", "no heartbeat")]}}


def facts(of: Json, **fields: Any) -> Facts:
    """Return the facts about a pod in a healthy cluster: one NodeRuntime, one node n1 that is Ready."""
    healthy: Json = {
        "runtime_class": runtime_class(),
        "runtimes": [runtime(desiredNodes=1)],
        "instances": [instance("n1", handlers=[handler("gvisor")])],
        "offered": True,
        "node": node(),
        "events": [],
    }
    return Facts(of, **{**healthy, **fields})
