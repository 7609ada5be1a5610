"""``noderuntime-operator canaries``: the chart's ``helm test``, which runs a pod of every RuntimeClass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.kube import Json, Kube, KubeError
from noderuntime_operator.settings import AgentSettings

SECONDS = 120.0
"""Time for all pods, the pull of the image included."""
_POLL_SECONDS = 0.5
_KIND = "AgentPod"
"""Pods in the release's namespace, which the agents' are, too."""


async def run_canaries(
    kube: Kube, agent: AgentSettings, report: Callable[[str], None], seconds: float = SECONDS
) -> bool:
    """Run a pod of every handler of every NodeRuntime; report each, and return whether all succeeded."""
    classes = [
        handler.runtime_class
        async for body in kube.list("NodeRuntime")
        for handler in NodeRuntimeSpec.model_validate(body["spec"]).handlers
    ]
    if not classes:
        report("no NodeRuntime exists, so there is nothing to test")
    outcomes = await asyncio.gather(*(_run(kube, agent, name, seconds) for name in classes))
    for name, problem in zip(classes, outcomes, strict=True):
        report(f"RuntimeClass {name}: {problem or 'a pod ran'}")
    return not any(outcomes)


async def _run(kube: Kube, agent: AgentSettings, runtime_class: str, seconds: float) -> str:
    """Run one pod and delete it; return why it failed, or an empty string."""
    try:
        created = await kube.create(_pod(agent, runtime_class, seconds), _KIND)
        meta = created["metadata"]
        try:
            return await _outcome(kube, meta["name"], seconds)
        finally:
            await kube.delete(_KIND, meta["name"], {"uid": meta["uid"]})
    except KubeError as error:
        return f"the API server refused a request, or is unreachable: {error}"


async def _outcome(kube: Kube, name: str, seconds: float) -> str:
    """Wait until the pod has ended; return why it failed, or an empty string."""
    status: Mapping[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            while status.get("phase") not in ("Succeeded", "Failed"):
                await asyncio.sleep(_POLL_SECONDS)
                status = (await kube.get(_KIND, name) or {}).get("status") or {}
    except TimeoutError:
        return f"the pod did not run within {seconds:.0f} s: {explanation(status)}"
    return "" if status["phase"] == "Succeeded" else f"the pod failed: {explanation(status)}"


def explanation(status: Mapping[str, Any]) -> str:
    """Return what a pod's status says about why it has not succeeded."""
    for container in status.get("containerStatuses") or ():
        for state in (container.get("state") or {}).values():
            if state.get("reason"):
                return f"{state['reason']}: {state.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition["status"] == "False" and condition.get("message"):
            return str(condition["message"])
    return str(status.get("message") or status.get("reason") or "its status has no reason")


def _pod(agent: AgentSettings, runtime_class: str, seconds: float) -> Json:
    """Return a pod of the RuntimeClass that ends at once."""
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    confined = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "noderuntime-canary-",
            "labels": {"app.kubernetes.io/name": "noderuntime", "app.kubernetes.io/component": "canary"},
        },
        "spec": {
            "runtimeClassName": runtime_class,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": round(seconds),
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": name} for name in agent.image_pull_secrets],
            "securityContext": user,
            "containers": [
                {
                    "name": "canary",
                    "image": agent.image,
                    "imagePullPolicy": agent.image_pull_policy,
                    "command": ["/bin/true"],
                    "securityContext": confined,
                }
            ],
        },
    }
