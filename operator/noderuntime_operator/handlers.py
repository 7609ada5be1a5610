"""kopf's wiring: start-up, credentials, health, NodeRuntimes; informers watch everything else.

There are no ``on.create`` or ``on.update`` handlers: kopf would store its progress in annotations
of every NodeRuntime. The reconciler also manages the finalizer, because the whole cluster's state decides
when it can be removed. All handlers are coroutines: kopf would run functions in threads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from typing import Any

import kopf

from noderuntime_operator.exposition import serve_metrics
from noderuntime_operator.kube import PAGE, Kube
from noderuntime_operator.leader import Election, identity
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.observe import Caches
from noderuntime_operator.reconcile import Reconciler
from noderuntime_operator.routing import Router
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.views import runtime_view

log = logging.getLogger(__name__)

RUNTIMES = ("noderuntime.dev", "v1alpha1", "noderuntimes")

HUNG_SECONDS = 300.0
"""A part without a sign of life for this long hangs: every request has a shorter timeout.

An API server that is unreachable or overloaded (HTTP 429, 5xx) is no reason to restart the operator. One that
refuses its requests otherwise can be: a restart reads the credentials again, and waits for the CRDs.
"""


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **indices: Any) -> None:
    """Wait for the CRDs, then start the watches, the election and the loop."""
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.posting.enabled = False
    agent = AgentSettings.model_validate_json(os.environ["NODERUNTIME_AGENT"])
    metrics = Metrics(int(os.environ.get("NODERUNTIME_MEMORY_LIMIT", "0")))
    memo.exposition = await serve_metrics(memo.metrics_port, metrics.text)
    memo.kube = kube = await Kube.connect(agent.namespace, metrics)
    for kind in ("NodeRuntime", "NodeRuntimeInstance"):
        while not await kube.is_served(kind):
            log.info("waiting for a CRD", extra={"kind": kind})
            await asyncio.sleep(2)
    caches = Caches.over(kube, indices["runtimes"], metrics)
    memo.pods = caches.pods
    metrics.watch_caches(caches.sizes)
    memo.election = election = Election(kube, identity(agent.namespace), metrics, time.monotonic)
    kube.seconds_to_write = election.seconds_to_write
    memo.reconciler = Reconciler(kube, caches, agent, lambda: election.leads and caches.are_complete, metrics)
    Router(caches, memo.reconciler.wake).connect()
    parts = {"reconcile loop": memo.reconciler, "leader election": election}
    memo.parts = parts | {f"watch of {informer.kind}": informer for informer in caches.informers}
    memo.tasks = [asyncio.create_task(part.run(), name=name) for name, part in memo.parts.items()]


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Stop all parts, then release the lease. The next leader repeats an interrupted reconciliation."""
    for task in memo.tasks:
        task.cancel()
    await asyncio.gather(*memo.tasks, return_exceptions=True)  # one that failed does not keep the lease
    await memo.pods.close()
    await memo.election.release()
    await memo.kube.close()
    await memo.exposition.cleanup()


@kopf.on.probe(id="reconciler", errors=kopf.ErrorsMode.PERMANENT)
async def alive(memo: kopf.Memo, **_: Any) -> str:
    """Fail the liveness probe if a part ended or hangs. kopf itself reopens its broken watches."""
    now = asyncio.get_running_loop().time()
    for task, (name, part) in zip(memo.tasks, memo.parts.items(), strict=True):
        age = now - part.alive_at
        if task.done() or age > HUNG_SECONDS:
            raise RuntimeError(f"the {name} has shown no sign of life for {age:.0f} s")
    return "ok"


@kopf.on.probe(id="leader", errors=kopf.ErrorsMode.PERMANENT)
async def leader(memo: kopf.Memo, **_: Any) -> str:
    """Report who leads; an operator that does not lead is healthy."""
    return str(memo.election)


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
    return {name: runtime_view(body)}


@kopf.on.event(*RUNTIMES)
async def runtime_changed(name: str, event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """Reconcile the NodeRuntime, after a deletion all: others can select the nodes that it claimed."""
    if event["type"] == "DELETED":
        memo.reconciler.wake_all()
    memo.reconciler.wake(name)
