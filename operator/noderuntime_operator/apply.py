"""From a Plan to the cluster. Server-side apply, in an order that survives a stop at any point.

New things first (RuntimeClasses, DaemonSet, instances), then labels, then what has to go.
"""

from __future__ import annotations

from noderuntime_operator.api import API_VERSION, FINALIZER, NodeRuntimeStatus
from noderuntime_operator.desired import daemon_set, daemon_set_name, instance, runtime_class
from noderuntime_operator.kube import Json, Kube, KubeError
from noderuntime_operator.observation import Observation, RuntimeView
from noderuntime_operator.rollout import Plan
from noderuntime_operator.settings import AgentSettings


async def add_finalizer(kube: Kube, runtime: RuntimeView) -> None:
    """Hold the NodeRuntime until its nodes are clean."""
    await _set_finalizers(kube, runtime, [*runtime.finalizers, FINALIZER])


async def drop_finalizer(kube: Kube, runtime: RuntimeView) -> None:
    """Let the NodeRuntime go."""
    await _set_finalizers(kube, runtime, [name for name in runtime.finalizers if name != FINALIZER])


async def _set_finalizers(kube: Kube, runtime: RuntimeView, finalizers: list[str]) -> None:
    meta = {"resourceVersion": runtime.resource_version, "finalizers": finalizers}
    await kube.patch("NodeRuntime", runtime.name, {"metadata": meta})


async def apply(
    kube: Kube, runtime: RuntimeView, seen: Observation, plan: Plan, agent: AgentSettings
) -> dict[str, int]:
    """Do what the plan says. Returns the generation of each instance written.

    Raises KubeError at the first refusal; what is left is found again by the next reconcile.
    """
    if plan.serve:
        await _apply_shared(kube, runtime, seen, agent)
    written = await _write_instances(kube, seen, plan)
    for name, labels in plan.labels.items():
        await _patch_labels(kube, name, dict(labels))
    await _prune(kube, runtime, plan)
    return written


async def _apply_shared(kube: Kube, runtime: RuntimeView, seen: Observation, agent: AgentSettings) -> None:
    """Apply the DaemonSet and the RuntimeClasses.

    A class of the right name that is somebody else's stays as it is. So does one of ours that leads
    to another handler: that cannot be changed, it goes when no pod uses it, and is made anew then.
    """
    for handler in runtime.spec.handlers:
        known = seen.runtime_classes.get(handler.runtime_class)
        if known is None or (known.owner, known.handler) == (runtime.name, handler.name):
            await kube.apply(runtime_class(runtime.name, handler))
    await kube.apply(daemon_set(runtime.name, runtime.spec, agent))


async def _write_instances(kube: Kube, seen: Observation, plan: Plan) -> dict[str, int]:
    """Create and update instances. Should a cache have been late, the API server refuses a second owner."""
    written = {}
    for name, spec in {**plan.create, **plan.update}.items():
        answer = await kube.apply(instance(seen.nodes[name], spec))
        written[name] = int(answer["metadata"]["generation"])
    return written


async def _patch_labels(kube: Kube, node: str, labels: Json) -> None:
    """Change labels of a node that may be gone by now."""
    try:
        await kube.patch("Node", node, {"metadata": {"labels": labels}})
    except KubeError as error:
        if error.status != 404:
            raise


async def _prune(kube: Kube, runtime: RuntimeView, plan: Plan) -> None:
    """Delete what the plan says. The DaemonSet is seen until its pods are gone: it holds the finalizer."""
    for name in plan.delete_instances:
        await kube.delete("NodeRuntimeInstance", name)
    for name in plan.delete_classes:
        await kube.delete("RuntimeClass", name)
    if plan.delete_daemon_set:
        await kube.delete("DaemonSet", daemon_set_name(runtime.name), "Foreground")


async def write_status(kube: Kube, runtime: RuntimeView, status: NodeRuntimeStatus) -> bool:
    """Write the status if it is new; says whether it was."""
    if status == runtime.status:
        return False
    patch = {
        "apiVersion": API_VERSION,
        "kind": "NodeRuntime",
        "metadata": {"uid": runtime.uid},
        "status": status.dump(),
    }
    await kube.patch("NodeRuntime", runtime.name, patch, "status")
    return True
