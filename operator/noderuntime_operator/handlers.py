"""kopf's wiring: watches fill the indices, events wake the reconciler.

There are no ``on.create`` or ``on.update`` handlers: kopf would store its progress in annotations
of every Node and NodeRuntime. The reconciler also manages the finalizer, because the whole cluster's
state decides when it can be removed. All handlers are coroutines: kopf would run functions in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from typing import Any

import kopf

from noderuntime_operator import observe
from noderuntime_operator.cluster_state import NodeView
from noderuntime_operator.desired import MANAGED_BY, MANAGER
from noderuntime_operator.exposition import serve_metrics
from noderuntime_operator.kube import PAGE, Kube
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.reconcile import Reconciler
from noderuntime_operator.settings import AgentSettings

log = logging.getLogger(__name__)

RUNTIMES = ("noderuntime.dev", "v1alpha1", "noderuntimes")
INSTANCES = ("noderuntime.dev", "v1alpha1", "noderuntimeinstances")
NODES = ("", "v1", "nodes")
RUNTIME_CLASSES = ("node.k8s.io", "v1", "runtimeclasses")
DAEMON_SETS = ("apps", "v1", "daemonsets")

HUNG_SECONDS = 300.0
"""A loop without an iteration for this long hangs: every request has a shorter timeout."""


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **indices: Any) -> None:
    """Wait for the CRDs, then start the loop, which sleeps until the first event.

    kopf sends no event before all indices are complete.
    """
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.watching.label_selectors[DAEMON_SETS[2]] = f"{MANAGED_BY}={MANAGER}"
    settings.posting.enabled = False
    agent = AgentSettings.model_validate_json(os.environ["NODERUNTIME_AGENT"])
    memo.metrics = Metrics(int(os.environ.get("NODERUNTIME_MEMORY_LIMIT", "0")))
    memo.exposition = await serve_metrics(memo.metrics_port, memo.metrics.text)
    memo.kube = await Kube.connect(agent.namespace, memo.metrics)
    for kind in ("NodeRuntime", "NodeRuntimeInstance"):
        while not await memo.kube.is_served(kind):
            log.info("waiting for a CRD", extra={"kind": kind})
            await asyncio.sleep(2)
    caches = observe.Caches(**{name: indices[name] for name in observe.Caches.__dataclass_fields__})
    memo.metrics.watch_caches(caches.sizes)
    memo.metrics.leads(leader=True)
    memo.seen_nodes = {}
    memo.reconciler = Reconciler(memo.kube, caches, agent, memo.metrics)
    memo.loop = asyncio.create_task(memo.reconciler.run())


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Stop the loop. The next start repeats an interrupted reconciliation."""
    memo.loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await memo.loop
    await memo.kube.close()
    await memo.exposition.cleanup()


@kopf.on.probe(id="reconciler", errors=kopf.ErrorsMode.PERMANENT)
async def alive(memo: kopf.Memo, **_: Any) -> str:
    """Fail the liveness probe if the loop hangs. kopf itself reopens broken watches."""
    age = asyncio.get_running_loop().time() - memo.reconciler.alive_at
    if memo.loop.done() or age > HUNG_SECONDS:
        raise RuntimeError(f"the reconcile loop has not run for {age:.0f} s")
    return "ok"


@kopf.on.login()
async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Return the pod's ServiceAccount as credentials, outside of a cluster those of the kubeconfig.

    kopf connects to the address in the pod's environment instead of a name: cluster DNS may run on
    nodes that this operator is about to repair.
    """
    pod = kopf.login_with_service_account(**kwargs)
    if pod is None:
        return kopf.login_with_kubeconfig(**kwargs)
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return dataclasses.replace(pod, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")


@kopf.index(*RUNTIMES)
async def runtimes(name: str, body: kopf.Body, **_: Any) -> dict[str, Any]:
    """Index NodeRuntimes by name."""
    return {name: observe.runtime_view(body)}


@kopf.index(*INSTANCES)
async def instances(name: str, body: kopf.Body, **_: Any) -> dict[str, Any]:
    """Index NodeRuntimeInstances by name."""
    return {name: observe.instance_view(body)}


@kopf.index(*NODES)
async def nodes(name: str, body: kopf.Body, **_: Any) -> dict[str, Any]:
    """Index Nodes by name."""
    return {name: observe.node_view(body)}


@kopf.index(*RUNTIME_CLASSES)
async def runtime_classes(name: str, body: kopf.Body, **_: Any) -> dict[str, Any]:
    """Index RuntimeClasses by name."""
    return {name: observe.runtime_class_view(body)}


@kopf.index(*DAEMON_SETS)
async def daemon_sets(name: str, body: kopf.Body, **_: Any) -> dict[str, Any]:
    """Index the agents' DaemonSets by name."""
    return {name: observe.daemon_set_view(body)}


@kopf.on.event(*RUNTIMES)
async def runtime_changed(memo: kopf.Memo, **_: Any) -> None:
    """Reconcile all NodeRuntimes: one can claim the nodes that another has released."""
    memo.reconciler.wake_all()


@kopf.on.event(*INSTANCES)
@kopf.on.event(*RUNTIME_CLASSES)
@kopf.on.event(*DAEMON_SETS)
async def object_changed(memo: kopf.Memo, **_: Any) -> None:
    """Reconcile all NodeRuntimes: an agent reported, or an object of the operator changed."""
    memo.reconciler.wake_all()


@kopf.on.event(*NODES)
async def node_changed(name: str, type: str | None, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:  # noqa: A002
    """Reconcile all NodeRuntimes if a node was added, deleted, or changed its labels or readiness."""
    view: NodeView | None = None if type == "DELETED" else observe.node_view(body)
    if memo.seen_nodes.get(name) == view:
        return  # a heartbeat
    memo.seen_nodes[name] = view
    if view is None:
        del memo.seen_nodes[name]
    memo.reconciler.wake_all()
