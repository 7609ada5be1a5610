"""Apply a Plan to the cluster, in an order that can be interrupted at any point.

First close RuntimeClasses that are to be removed, then create and update RuntimeClasses, DaemonSet and
instances, then change labels, then delete.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from noderuntime_operator.api.instance import InstanceSpec
from noderuntime_operator.api.names import (
    API_VERSION,
    BEFORE_ANNOTATION,
    FINALIZER,
    OWNER_LABEL,
    RESTORED_ANNOTATION,
    RETRY_ANNOTATION,
    TAKEN_ANNOTATION,
)
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import (
    ClusterState,
    DaemonSetView,
    InstanceView,
    RuntimeClassView,
    RuntimeView,
)
from noderuntime_operator.desired import (
    controller_revision,
    daemon_set,
    daemon_set_name,
    instance,
    runtime_class,
)
from noderuntime_operator.kube import Json, Kube, KubeError
from noderuntime_operator.rollout import Plan
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.texts import timestamp
from noderuntime_operator.writes import Write, Writer


async def add_finalizer(kube: Kube, runtime: RuntimeView) -> None:
    """Add the finalizer, which keeps the NodeRuntime until its nodes are cleaned up."""
    await _set_finalizers(kube, runtime, [*runtime.finalizers, FINALIZER])


async def drop_finalizer(kube: Kube, runtime: RuntimeView) -> None:
    """Remove the finalizer, which ends the deletion of the NodeRuntime, once no node is claimed."""
    if await _claims_nodes(kube, runtime):
        return
    await _set_finalizers(kube, runtime, [name for name in runtime.finalizers if name != FINALIZER])


async def _set_finalizers(kube: Kube, runtime: RuntimeView, finalizers: list[str]) -> None:
    """Write the finalizers. If the NodeRuntime has changed meanwhile, the next reconciliation does."""
    meta = {"resourceVersion": runtime.resource_version, "finalizers": finalizers}
    try:
        await kube.patch("NodeRuntime", runtime.name, {"metadata": meta})
    except KubeError as error:
        if error.status not in (404, 409):
            raise


class Applier:
    """Applies the plans of one NodeRuntime. Writes only differences between the plan and the cache."""

    def __init__(self, kube: Kube, agent: AgentSettings, writer: Writer) -> None:
        self.writer = writer
        self._kube = kube
        self._agent = agent
        self._applied: dict[str, tuple[Json, str]] = {}
        """The manifests of shared objects as they were applied, and the version that the objects had then."""

    async def apply(self, runtime: RuntimeView, cluster: ClusterState, plan: Plan) -> dict[str, int]:
        """Apply the plan; return the generation of each written instance.

        A refused write is kept by the writer. Raises KubeError if the API server is unreachable, NotLeader.
        """
        written: dict[str, int] = {}
        for writes in (
            {
                f"labels of RuntimeClass {name}": self._label("RuntimeClass", name, labels)
                for name, labels in plan.class_labels.items()
            },
            self._revision(runtime, cluster, plan),
            self._classes(runtime, cluster, plan) if plan.serve else {},
            self._agents(runtime, cluster, plan) if not plan.delete_daemon_set else {},
            self._instances(runtime, cluster, plan, written),
            {
                f"labels of Node {name}": self._label("Node", name, labels, cluster)
                for name, labels in plan.labels.items()
            },
            self._deletes(runtime, cluster, plan),
        ):
            await self.writer.send(writes)
        return written

    def _revision(self, runtime: RuntimeView, cluster: ClusterState, plan: Plan) -> dict[str, Write]:
        """Return the write that stores the revision, before a node gets it."""
        if plan.store is None:
            return {}
        manifest = controller_revision(runtime.name, plan.store, self._agent, cluster.service_account)
        return {f"ControllerRevision {plan.store.name}": partial(self._store_revision, manifest)}

    async def _store_revision(self, manifest: Json) -> None:
        """Create a ControllerRevision. One that exists was not understood, and cannot be changed."""
        try:
            await self._kube.create(manifest)
        except KubeError as error:
            if error.status != 409:
                raise
            await self._kube.delete("ControllerRevision", manifest["metadata"]["name"], {})
            await self._kube.create(manifest)

    def _classes(self, runtime: RuntimeView, cluster: ClusterState, plan: Plan) -> dict[str, Write]:
        """Return the writes of the RuntimeClasses.

        A RuntimeClass that belongs to another owner is not changed. Neither is one with another
        handler, because that field is immutable: it is deleted when no pod uses it, then created again.
        """
        writes: dict[str, Write] = {}
        for handler in plan.handlers:
            known = cluster.runtime_classes.get(handler.runtime_class)
            manifest = runtime_class(runtime.name, handler)
            name = f"RuntimeClass {handler.runtime_class}"
            if known is None:
                writes[name] = partial(self._create_if_absent, manifest)
            elif known.handler == handler.name and known.owner in {runtime.name, *cluster.vanished}:
                manifest["metadata"]["uid"] = known.uid
                writes |= self._difference(name, manifest, known.resource_version)
        return writes

    def _agents(self, runtime: RuntimeView, cluster: ClusterState, plan: Plan) -> dict[str, Write]:
        """Return the write of the DaemonSet. A deletion needs agents too, also after a reinstallation."""
        agents = cluster.daemon_sets.get(daemon_set_name(runtime.name))
        if agents and not cluster.service_account:
            return {}  # the release is being uninstalled: the agents are removed with it
        version = f"{agents.uid}/{agents.generation}" if agents else ""
        agent = self._agent.model_copy(update={"image": plan.target.revision.image or self._agent.image})
        manifest = daemon_set(runtime.name, agent, cluster.service_account)
        return self._difference(f"DaemonSet {manifest['metadata']['name']}", manifest, version)

    def _difference(self, name: str, manifest: Json, version: str) -> dict[str, Write]:
        """Return the write of an object, unless it has the version to which the manifest was applied."""
        if version and self._applied.get(name) == (manifest, version):
            return {}
        return {name: partial(self._apply_shared, name, manifest)}

    async def _apply_shared(self, name: str, manifest: Json) -> None:
        meta = (await self._kube.apply(manifest))["metadata"]
        is_daemon_set = manifest["kind"] == "DaemonSet"
        version = f"{meta['uid']}/{meta['generation']}" if is_daemon_set else meta["resourceVersion"]
        self._applied[name] = (manifest, version)

    async def _create_if_absent(self, manifest: Json) -> None:
        """Create an object. One that exists is not changed: the cache does not show yet who owns it."""
        try:
            await self._kube.create(manifest)
        except KubeError as error:
            if error.status != 409:
                raise

    def _instances(
        self, runtime: RuntimeView, cluster: ClusterState, plan: Plan, written: dict[str, int]
    ) -> dict[str, Write]:
        """Return the writes of instances, which note the generations in written."""
        common = {TAKEN_ANNOTATION: timestamp(cluster.now)}
        common |= {RETRY_ANNOTATION: runtime.retry} if runtime.retry else {}
        before = {BEFORE_ANNOTATION: "true"}
        return {
            f"NodeRuntimeInstance {name}": partial(
                self._apply_instance,
                cluster,
                spec,
                common | before if name in plan.failed_before else common,
                written,
            )
            for name, spec in {**plan.create, **plan.update}.items()
        }

    async def _apply_instance(
        self,
        cluster: ClusterState,
        spec: InstanceSpec,
        annotations: dict[str, str],
        written: dict[str, int],
    ) -> None:
        """Create or update an instance. The API server refuses a second owner if the cache is out of date."""
        name = spec.node_name
        known, node = cluster.instances.get(name), cluster.nodes[name]
        restored = known.restored if known else node.claimed_by is not None
        if restored:
            annotations = {**annotations, RESTORED_ANNOTATION: "true"}
        answer = await self._kube.apply(instance(node, spec, annotations))
        written[name] = int(answer["metadata"]["generation"])

    def _label(
        self, kind: str, name: str, labels: Mapping[str, str | None], cluster: ClusterState | None = None
    ) -> Write:
        """Return the write of an object's labels; a Node that was created again under its name is refused."""
        uid = {"uid": cluster.nodes[name].uid} if cluster else {}
        return partial(self._patch_if_present, kind, name, {"metadata": {**uid, "labels": dict(labels)}})

    async def _patch_if_present(self, kind: str, name: str, patch: Json) -> None:
        try:
            await self._kube.patch(kind, name, patch)
        except KubeError as error:
            if error.status != 404:
                raise

    def _deletes(self, runtime: RuntimeView, cluster: ClusterState, plan: Plan) -> dict[str, Write]:
        """Return the deletions of what the plan names, each only of the object that was observed."""
        doomed: list[tuple[str, InstanceView | RuntimeClassView]]
        doomed = [("NodeRuntimeInstance", cluster.instances[name]) for name in plan.delete_instances]
        doomed += [("RuntimeClass", cluster.runtime_classes[name]) for name in plan.delete_classes]
        writes: dict[str, Write] = {
            f"deletion of {kind} {view.name}": partial(self._kube.delete, kind, view.name, _observed(view))
            for kind, view in doomed
        }
        writes |= {
            f"deletion of DaemonSet {found.namespace}/{found.name}": partial(
                self._kube.delete, "DaemonSet", found.name, {"uid": found.uid}, namespace=found.namespace
            )
            for found in plan.other_agents
        }
        writes |= {
            f"deletion of Pod {pod.name}": partial(self._kube.delete, "AgentPod", pod.name, {"uid": pod.uid})
            for pod in plan.replace
        }
        writes |= {
            f"deletion of Pod {pod.name}": partial(
                self._kube.delete, "AgentPod", pod.name, {"uid": pod.uid}, grace=0
            )
            for pod in plan.abandon
        }
        writes |= {
            f"deletion of ControllerRevision {name}": partial(
                self._kube.delete, "ControllerRevision", name, {}
            )
            for name in plan.forget
        }
        agents = cluster.daemon_sets.get(daemon_set_name(runtime.name))
        if plan.delete_daemon_set and agents:
            writes[f"deletion of DaemonSet {agents.name}"] = partial(self._delete_daemon_set, runtime, agents)
        return writes

    async def _delete_daemon_set(self, runtime: RuntimeView, agents: DaemonSetView) -> None:
        """Delete the agents, unless a node is claimed; the DaemonSet exists until its pods are gone."""
        if not await _claims_nodes(self._kube, runtime):
            await self._kube.delete("DaemonSet", agents.name, {"uid": agents.uid}, "Foreground")


def _observed(view: InstanceView | RuntimeClassView) -> dict[str, str]:
    """Return the preconditions under which an object is still the one that was observed."""
    return {"uid": view.uid, "resourceVersion": view.resource_version}


async def _claims_nodes(kube: Kube, runtime: RuntimeView) -> bool:
    """Return whether a node is claimed by this NodeRuntime. Asks the store: a cache can be incomplete."""
    async for _ in kube.list("Node", label_selector=f"{OWNER_LABEL}={runtime.name}"):
        return True
    return False


async def write_status(kube: Kube, runtime: RuntimeView, status: NodeRuntimeStatus) -> bool:
    """Write the status if it differs from the current one; return whether it did."""
    if status == runtime.status:
        return False
    patch = {
        "apiVersion": API_VERSION,
        "kind": "NodeRuntime",
        "metadata": {"uid": runtime.uid},
        "status": _merge_patch(runtime.status.dump(), status.dump()),
    }
    await kube.patch("NodeRuntime", runtime.name, patch, "status")
    return True


def _merge_patch(old: Json, new: Json) -> Json:
    """Return the merge patch that makes an old object equal to the new one: null removes a field."""
    gone = dict.fromkeys(old.keys() - new.keys())
    return gone | {
        key: _merge_patch(old.get(key) or {}, value) if isinstance(value, dict) else value
        for key, value in new.items()
    }
