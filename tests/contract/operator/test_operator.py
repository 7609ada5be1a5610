"""The operator as a process against a real API server; the tests simulate the nodes and their agents."""

from __future__ import annotations

import json

from control_plane import ControlPlane, eventually
from release import NAMESPACE, Operator
from simulated import RUNTIME_LABEL, Cluster


def test_noderuntime_becomes_ready_as_handlers_are_proven(cluster: Cluster) -> None:
    cluster.node("a1", "a")
    cluster.runtime("a", "a", ("runc", "gvisor"))

    eventually(lambda: cluster.instance("a1"), "no instance")
    instance = cluster.instance("a1")
    assert instance["spec"] == {
        "nodeName": "a1",
        "runtimeName": "a",
        "state": "Installed",
        "image": "example.test/noderuntime:test",
        "kubelet": {"mode": "Delegate", "switchTimeoutSeconds": 120},
        "handlers": [{"name": "a-runc", "type": "Runc"}, {"name": "a-gvisor", "type": "GVisor"}],
    }
    assert instance["metadata"]["ownerReferences"][0]["kind"] == "Node"
    eventually(lambda: cluster.labels("a1").get(RUNTIME_LABEL) == "a", "the node is not claimed")
    assert not [key for key in cluster.labels("a1") if key.startswith("handler.")]

    runtime_class = cluster.plane.get("runtimeclass", "a-gvisor")
    assert runtime_class["handler"] == "a-gvisor"
    assert runtime_class["scheduling"]["nodeSelector"] == {
        "handler.noderuntime.dev/a-gvisor": "true",
        RUNTIME_LABEL: "a",
    }
    daemon_set = cluster.plane.get("daemonset", "noderuntime-agent-a", "-n", NAMESPACE)
    agents = ("-n", NAMESPACE, "-l", f"{RUNTIME_LABEL}=a")
    eventually(lambda: cluster.plane.get("pods", "", *agents).get("items"), "no agent's pod for the node")
    assert daemon_set["spec"]["updateStrategy"]["type"] == "OnDelete"
    assert cluster.has("a", "Ready", "False", "Installing")

    cluster.report("a1", "Degraded", a_runc=("Ready", ""), a_gvisor=("Broken", "runsc: no such\nfile"))
    eventually(lambda: cluster.has("a", "Degraded", "True", "HandlerBroken"), "no Degraded condition")
    assert "handler a-gvisor: runsc: no such file" in cluster.condition("a", "Degraded")["message"]
    eventually(
        lambda: cluster.labels("a1").get("handler.noderuntime.dev/a-runc") == "true", "no handler label"
    )
    assert "handler.noderuntime.dev/a-gvisor" not in cluster.labels("a1")

    cluster.report("a1", "Ready", a_runc=("Ready", ""), a_gvisor=("Ready", ""))
    eventually(lambda: cluster.has("a", "Ready", "True", "AllNodesReady"), "never Ready")
    assert cluster.labels("a1")["handler.noderuntime.dev/a-gvisor"] == "true"
    status = cluster.plane.get("nr", "a")["status"]
    assert (status["desiredNodes"], status["readyNodes"], status["updatedNodes"]) == (1, 1, 1)
    assert status["failingNodes"] == []
    assert "AllNodesReady" in cluster.plane.kubectl("get", "nr", "a")
    eventually(
        lambda: "AllNodesReady" in cluster.plane.kubectl("describe", "nr", "a").split("Events:")[1],
        "no event",
    )

    # The label stays during a failure: a restarted kubelet admits running pods against it.
    cluster.report("a1", "Degraded", a_runc=("Ready", ""), a_gvisor=("Broken", "gone"))
    eventually(lambda: cluster.has("a", "Degraded", "True", "HandlerBroken"), "no Degraded condition")
    assert cluster.labels("a1")["handler.noderuntime.dev/a-gvisor"] == "true"


def test_deletion_waits_for_pods_and_leaves_nothing(cluster: Cluster) -> None:
    cluster.node("d1", "d")
    cluster.runtime("d", "d")
    eventually(lambda: cluster.instance("d1"), "no instance")
    cluster.report("d1", "Ready", d_runc=("Ready", ""))
    eventually(lambda: cluster.labels("d1").get("handler.noderuntime.dev/d-runc"), "no handler label")
    cluster.pod("user", "d1", "d-runc")

    cluster.plane.kubectl("delete", "nr", "d", "--wait=false")
    eventually(
        lambda: cluster.has("d", "Progressing", "True", "PodsStillRunning"), "pods do not block the deletion"
    )
    assert "default/user" in cluster.condition("d", "Progressing")["message"]
    assert cluster.has("d", "Ready", "False", "PodsStillRunning")
    event = ("-n", "default", "--field-selector=reason=PodsStillRunning,involvedObject.name=d")
    eventually(lambda: "default/user" in cluster.plane.kubectl("get", "events", *event), "no event")
    assert cluster.instance("d1")["spec"]["state"] == "Installed"
    assert cluster.plane.get("runtimeclass", "d-runc")

    cluster.delete_pod("user")
    eventually(lambda: cluster.instance("d1")["spec"]["state"] == "Removed", "the state is not Removed")
    assert not cluster.plane.get("runtimeclass", "d-runc")
    assert cluster.labels("d1")[RUNTIME_LABEL] == "d"
    assert "handler.noderuntime.dev/d-runc" not in cluster.labels("d1")
    assert cluster.plane.get("nr", "d")

    cluster.report("d1", "Removed")
    # There is no kubelet that ends the agent's pod.
    agents = ("-n", NAMESPACE, "-l", f"{RUNTIME_LABEL}=d", "--grace-period=0", "--force")
    cluster.plane.kubectl("delete", "pods", *agents)
    eventually(lambda: not cluster.plane.get("nr", "d"), "the NodeRuntime keeps its finalizer")
    assert not cluster.instance("d1")
    assert RUNTIME_LABEL not in cluster.labels("d1")
    assert not cluster.plane.get("daemonset", "noderuntime-agent-d", "-n", NAMESPACE)


def test_handler_is_removed_after_its_pods(cluster: Cluster) -> None:
    cluster.node("h1", "h")
    cluster.runtime("h", "h", ("runc", "gvisor"))
    eventually(lambda: cluster.instance("h1"), "no instance")
    cluster.report("h1", "Ready", h_runc=("Ready", ""), h_gvisor=("Ready", ""))
    eventually(lambda: cluster.labels("h1").get("handler.noderuntime.dev/h-gvisor"), "no handler label")
    cluster.pod("guest", "h1", "h-gvisor")
    cluster.runtime("h", "h", ("runc",))
    eventually(lambda: cluster.has("h", "Progressing", "True", "PodsStillRunning"), "pods do not block it")
    assert cluster.plane.get("runtimeclass", "h-gvisor")
    assert len(cluster.instance("h1")["spec"]["handlers"]) == 2
    cluster.delete_pod("guest")
    eventually(lambda: len(cluster.instance("h1")["spec"]["handlers"]) == 1, "the handler is not removed")
    eventually(lambda: not cluster.plane.get("runtimeclass", "h-gvisor"), "the RuntimeClass is not removed")
    assert "handler.noderuntime.dev/h-gvisor" not in cluster.labels("h1")


def test_node_of_another_noderuntime_is_not_changed(cluster: Cluster) -> None:
    cluster.node("c1", "c")
    cluster.runtime("c", "c")
    eventually(lambda: cluster.instance("c1"), "no instance")
    cluster.runtime("other", "c")
    eventually(lambda: cluster.has("other", "Degraded", "True", "ClaimedByOther"), "no conflict")
    assert "c1: node c1 belongs to NodeRuntime c" in cluster.condition("other", "Degraded")["message"]
    assert cluster.instance("c1")["spec"]["runtimeName"] == "c"


def test_node_of_a_noderuntime_that_does_not_exist_is_taken_over(cluster: Cluster) -> None:
    cluster.node("x1", "x")
    cluster.runtime("gone", "x")
    eventually(lambda: cluster.instance("x1"), "no instance")
    cluster.report("x1", "Ready", gone_runc=("Ready", ""))
    label = "handler.noderuntime.dev/gone-runc"
    eventually(lambda: cluster.labels("x1").get(label), "no handler label")
    cluster.pod("guest", "x1", "gone-runc")
    cluster.runtime("heir", "x")
    eventually(lambda: cluster.has("heir", "Degraded", "True", "ClaimedByOther"), "no conflict")
    cluster.plane.kubectl("delete", "nr", "gone", "--wait=false")
    no_finalizer = '{"metadata":{"finalizers":null}}'
    cluster.plane.kubectl("patch", "nr", "gone", "--type=merge", "-p", no_finalizer)

    held = "which does not exist; the node is taken over after the end of its pods: default/guest"
    eventually(lambda: held in cluster.condition("heir", "Degraded")["message"], "the pod is not named", 20)
    assert cluster.instance("x1")["spec"]["runtimeName"] == "gone"
    assert (cluster.labels("x1")[label], cluster.labels("x1")[RUNTIME_LABEL]) == ("true", "gone")

    cluster.delete_pod("guest")
    eventually(lambda: cluster.labels("x1")[RUNTIME_LABEL] == "heir", "the node is not taken over", 30)
    assert cluster.instance("x1")["spec"]["runtimeName"] == "heir"
    assert label not in cluster.labels("x1")
    cluster.report("x1", "Ready", heir_runc=("Ready", ""))
    eventually(lambda: cluster.has("heir", "Ready", "True", "AllNodesReady"), "never Ready")


def test_foreign_runtime_class_is_not_changed(cluster: Cluster) -> None:
    foreign = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "f-runc"},
        "handler": "x",
    }
    cluster.plane.apply(foreign)
    try:
        cluster.runtime("f", "f")
        eventually(lambda: cluster.has("f", "Degraded", "True", "RuntimeClassConflict"), "no conflict")
        assert cluster.plane.get("runtimeclass", "f-runc")["handler"] == "x"
    finally:
        cluster.plane.kubectl("delete", "runtimeclass", "f-runc")
    eventually(lambda: cluster.has("f", "Degraded", "False", "AsExpected"), "the conflict is not resolved")
    eventually(lambda: cluster.plane.get("runtimeclass", "f-runc")["handler"] == "f-runc", "not created")


def test_rollout_changes_one_node_at_a_time(cluster: Cluster) -> None:
    for name in ("r1", "r2"):
        cluster.node(name, "r")
    cluster.runtime("r", "r")
    eventually(lambda: cluster.instance("r1"), "no instance")
    eventually(lambda: cluster.has("r", "Progressing", "True", "Rolling"), "not progressing")
    assert not cluster.instance("r2")
    cluster.report("r1", "Ready", r_runc=("Ready", ""))
    eventually(lambda: cluster.instance("r2"), "the second node never starts")
    cluster.report("r2", "Failed")
    eventually(lambda: cluster.has("r", "Degraded", "True", "Failed"), "no Degraded condition")
    # A changed spec goes to the failed node and no other.
    cluster.runtime("r", "r", kubelet={"mode": "Manual"})
    eventually(
        lambda: cluster.instance("r2")["spec"]["kubelet"]["mode"] == "Manual",
        "the failed node does not get the new spec",
    )
    assert cluster.instance("r1")["spec"]["kubelet"]["mode"] == "Delegate"
    cluster.report("r2", "Ready", r_runc=("Ready", ""))
    eventually(
        lambda: cluster.instance("r1")["spec"]["kubelet"]["mode"] == "Manual",
        "the rollout does not continue",
    )


def test_changed_object_is_repaired_without_other_writes(cluster: Cluster) -> None:
    cluster.node("t1", "t")
    cluster.runtime("t", "t")
    eventually(lambda: cluster.instance("t1"), "no instance")
    cluster.report("t1", "Ready", t_runc=("Ready", ""))
    eventually(lambda: cluster.has("t", "Ready", "True", "AllNodesReady"), "never Ready")
    before = cluster.plane.get("nr", "t")["metadata"]["resourceVersion"]
    cluster.plane.kubectl("delete", "runtimeclass", "t-runc")
    eventually(lambda: cluster.plane.get("runtimeclass", "t-runc"), "not repaired")
    cluster.plane.kubectl("label", "node", "t1", f"{RUNTIME_LABEL}-")
    eventually(lambda: cluster.labels("t1").get(RUNTIME_LABEL) == "t", "not repaired")
    assert cluster.plane.get("nr", "t")["metadata"]["resourceVersion"] == before


def agent_token(plane: ControlPlane, node: str) -> str:
    """Return a token bound to an agent's pod, as the node's kubelet requests it."""
    agent = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"agent-{node}", "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "noderuntime-agent",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "example.test/x"}],
        },
    }
    plane.apply(agent)
    bound = ("--bound-object-kind=Pod", f"--bound-object-name=agent-{node}")
    return plane.kubectl("create", "token", "noderuntime-agent", "-n", NAMESPACE, *bound).strip()


def test_agent_can_report_only_about_its_own_node(cluster: Cluster) -> None:
    for name in ("p1", "p2"):
        cluster.node(name, "p")
    cluster.runtime("p", "p", update={"maxUnavailable": 2})
    eventually(lambda: cluster.instance("p1") and cluster.instance("p2"), "no instances")
    token = agent_token(cluster.plane, "p1")
    path = "/apis/noderuntime.dev/v1alpha1/noderuntimeinstances"
    patch = {"status": {"phase": "Pending"}}
    try:
        status, answer = cluster.plane.raw("PATCH", f"{path}/p1/status", token, patch)
        assert status == 200, answer
        status, answer = cluster.plane.raw("PATCH", f"{path}/p2/status", token, patch)
        assert status == 403
        assert "the agent of node p1 cannot report about node p2" in answer["message"]
        status, _ = cluster.plane.raw("PATCH", f"{path}/p1", token, {"spec": {"state": "Removed"}})
        assert status == 403
        unbound = cluster.plane.kubectl("create", "token", "noderuntime-agent", "-n", NAMESPACE).strip()
        status, answer = cluster.plane.raw("PATCH", f"{path}/p1/status", unbound, patch)
        assert status == 403
        assert "token is not bound to a node" in answer["message"]
    finally:
        cluster.plane.kubectl("delete", "pod", "agent-p1", "-n", NAMESPACE, "--grace-period=0", "--force")


def test_operator_can_change_only_its_labels_of_a_node(cluster: Cluster) -> None:
    cluster.node("o1", "o")
    token = cluster.plane.kubectl("create", "token", "noderuntime-operator", "-n", NAMESPACE).strip()
    for patch in ({"metadata": {"labels": {"pool": "x"}}}, {"spec": {"unschedulable": True}}):
        status, answer = cluster.plane.raw("PATCH", "/api/v1/nodes/o1", token, patch)
        assert status == 403
        assert "noderuntime operator can change only" in answer["message"]


def test_operator_can_delete_only_daemon_sets_of_agents(installed: ControlPlane) -> None:
    labels = {"app": "x"}
    container = {"name": "c", "image": "example.test/x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    other = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "other", "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    installed.apply(other)
    token = installed.kubectl("create", "token", "noderuntime-operator", "-n", NAMESPACE).strip()
    path = "/apis/apps/v1/namespaces/default/daemonsets/other"
    status, answer = installed.raw("DELETE", path, token, {})
    assert status == 403
    assert "only the DaemonSets of its agents" in answer["message"]
    installed.kubectl("label", "daemonset", "other", "app.kubernetes.io/managed-by=noderuntime-operator")
    assert installed.raw("DELETE", path, token, {})[0] == 200


def test_admission_policies_have_no_type_errors(installed: ControlPlane) -> None:
    for name in ("noderuntime-agent", "noderuntime-operator", "noderuntime-agents", "noderuntime-removing"):
        eventually(
            lambda name=name: (
                "typeChecking" in installed.get("validatingadmissionpolicy", name).get("status", {})
            ),
            "the policy was not type-checked",
        )
        checked = installed.get("validatingadmissionpolicy", name)["status"]["typeChecking"]
        assert not checked.get("expressionWarnings"), json.dumps(checked)


def test_operator_health_reports_the_reconciler(operator: Operator) -> None:
    assert operator.health() == {"reconciler": "ok", "leader": "this operator leads"}
