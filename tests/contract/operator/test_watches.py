"""The operator's watches: the API server restarts, and forgets what happened meanwhile."""

from __future__ import annotations

import os
import signal

from control_plane import eventually
from release import Operator
from simulated import Cluster


def desired(cluster: Cluster, runtime: str) -> int | None:
    found: int | None = cluster.plane.get("nr", runtime).get("status", {}).get("desiredNodes")
    return found


def test_node_deleted_behind_a_compaction_is_forgotten(cluster: Cluster, operator: Operator) -> None:
    for name in ("w1", "w2"):
        cluster.node(name, "w")
    cluster.runtime("w", "w")
    eventually(lambda: desired(cluster, "w") == 2, "the nodes are not counted")
    eventually(lambda: cluster.instance("w1"), "no instance")
    before = len(operator.logged())
    os.kill(operator.process.pid, signal.SIGSTOP)
    try:
        cluster.plane.kubectl("delete", "node", "w2")
        cluster.node("w3", "elsewhere")
        cluster.plane.compact()
        cluster.plane.apiserver.stop()
        cluster.plane.start_apiserver()
    finally:
        os.kill(operator.process.pid, signal.SIGCONT)
    eventually(lambda: desired(cluster, "w") == 1, "the deleted node is still counted")
    assert "kind='Node' status=410" in operator.logged(before)
    cluster.report("w1", "Ready", w_runc=("Ready", ""))
    eventually(lambda: cluster.has("w", "Ready", "True", "AllNodesReady"), "instances are not watched")


def test_change_during_an_api_server_restart_is_noticed(cluster: Cluster, operator: Operator) -> None:
    cluster.node("v1", "v")
    cluster.runtime("v", "v")
    eventually(lambda: cluster.instance("v1"), "no instance")
    before = len(operator.logged())
    cluster.plane.apiserver.stop()
    eventually(
        lambda: "watch interrupted kind='NodeRuntimeInstance' status=0" in operator.logged(before),
        "the operator does not notice that the API server is away",
    )
    cluster.plane.start_apiserver()
    cluster.report("v1", "Ready", v_runc=("Ready", ""))
    eventually(lambda: cluster.has("v", "Ready", "True", "AllNodesReady"), "the report is not noticed")
    assert operator.process.poll() is None
