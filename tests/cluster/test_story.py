"""The whole story, in the order in which a user experiences it."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from conftest import World
from harness.run import CommandError, wait_for
from kubectl_noderuntime.cli import run as kubectl_noderuntime
from story import cri, steps, traces
from story.manifests import noderuntime, web_pod

PODS = [*steps.HANDLERS, steps.ORDINARY]


@pytest.fixture(scope="module")
def ordinary(world: World) -> steps.Identity:
    """The ordinary pod's container before noderuntime is installed."""
    steps.start_pods(world.cluster, {steps.ORDINARY: None})
    return steps.identity(world.cluster, steps.ORDINARY)


def test_node_has_no_python(world: World, ordinary: steps.Identity) -> None:
    with pytest.raises(CommandError):
        world.node.exec("sh", "-c", "command -v python3")
    assert traces.on_node(world.node) == []


def test_one_apply_makes_the_noderuntime_ready(world: World, ordinary: steps.Identity) -> None:
    steps.install(world.cluster, world.image)
    instance = world.cluster.kubectl.get("noderuntimeinstance", world.node.name)["status"]
    assert instance["phase"] == "Ready"
    assert instance["kubelet"]["state"] == "Noderuntime"
    assert {entry["name"]: entry["state"] for entry in instance["handlers"]} == {
        "noderuntime-runc": "Ready",
        "gvisor": "Ready",
    }
    for entry, tool in zip(instance["handlers"], ("runc", "runsc"), strict=True):
        printed = world.node.exec(f"/opt/noderuntime/current/bin/{tool}", "--version")
        assert printed.splitlines()[0].endswith(f" {entry['version']}")


def test_pods_select_their_kernel_by_runtime_class(world: World) -> None:
    steps.start_pods(world.cluster, {handler: handler for handler in steps.HANDLERS})
    kernel = world.node.exec("uname", "-r").strip()
    assert f"kernel {kernel}" in steps.log_of(world.cluster, "runc")
    gvisor = steps.log_of(world.cluster, "gvisor")
    assert kernel not in gvisor
    assert "Starting gVisor" in gvisor


@pytest.mark.parametrize(("pod", "handler"), [("runc", "noderuntime-runc"), ("gvisor", "gvisor")])
def test_why_names_node_and_handler_of_a_running_pod(
    world: World, pod: str, handler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = f"--kubeconfig={world.cluster.kubectl.kubeconfig}"
    instance = world.cluster.kubectl.get("noderuntimeinstance", world.node.name)["status"]
    (version,) = [entry["version"] for entry in instance["handlers"] if entry["name"] == handler]
    capsys.readouterr()
    assert kubectl_noderuntime([kubeconfig, "why", pod]) == 0
    assert capsys.readouterr().out == (
        f"Pod default/{pod} runs on {world.node.name} in handler {handler} ({version}) of NodeRuntime"
        " noderuntime, and is ready (1 container).\n"
    )


def test_pods_reach_each_other_by_ip_and_by_service(world: World) -> None:
    assert len(steps.check_connections(world.cluster, world.node, PODS)) == 2 * len(PODS) ** 2


def test_helm_test_runs_a_pod_of_every_class(world: World) -> None:
    output = steps.run_helm_test(world.cluster)
    for handler in steps.HANDLERS:
        assert f"RuntimeClass {handler}: a pod ran" in output


def test_helm_uninstall_is_refused_while_a_noderuntime_exists(world: World) -> None:
    with pytest.raises(CommandError) as refused:
        steps.uninstall_with_hooks(world.cluster)
    assert "NodeRuntimes exist: noderuntime." in refused.value.output
    assert "delete-all-noderuntimes-before-helm-uninstall" in refused.value.output
    steps.wait_ready(world.cluster)


@pytest.mark.parametrize("pod", PODS)
def test_exec_cp_and_port_forward_work_in_pods(world: World, pod: str, tmp_path: Path) -> None:
    kubectl = world.cluster.kubectl
    output = kubectl("exec", "-i", pod, "--", "sh", "-c", "cat; echo done", stdin="typed\n")
    assert output == "typed\ndone\n"
    with pytest.raises(CommandError) as failed:
        kubectl("exec", pod, "--", "sh", "-c", "exit 7")
    assert failed.value.status == 7
    (tmp_path / "there").write_bytes(bytes(range(256)) * 4000)
    kubectl("cp", str(tmp_path / "there"), f"{pod}:/tmp/copy")
    kubectl("cp", f"{pod}:/tmp/copy", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
    with kubectl.forwarded(pod, 80) as address, urlopen(f"http://{address}/", timeout=20) as answer:
        assert answer.read().decode().strip() == f"hello from {pod}"


def test_ordinary_pod_was_not_restarted(world: World, ordinary: steps.Identity) -> None:
    assert steps.identity(world.cluster, steps.ORDINARY) == ordinary


def test_restarted_agent_changes_nothing_on_the_node(world: World) -> None:
    kubelet = world.node.systemctl("show", "-P", "MainPID", "kubelet")
    daemon = world.node.systemctl("show", "-P", "MainPID", "noderuntime")
    agent = world.cluster.kubectl("get", "pods", "-n", steps.NAMESPACE, "-l", steps.AGENTS, "-o", "name")
    world.cluster.kubectl("delete", "-n", steps.NAMESPACE, *agent.split())
    ready = ("--for=condition=Ready", "pods", "-n", steps.NAMESPACE, "-l", steps.AGENTS, "--timeout=5s")
    wait_for("the new agent", lambda: world.cluster.kubectl("wait", *ready), timeout=90)
    steps.wait_ready(world.cluster)
    assert world.node.systemctl("show", "-P", "MainPID", "kubelet") == kubelet
    assert world.node.systemctl("show", "-P", "MainPID", "noderuntime") == daemon


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"handlers": [{"name": "a", "type": "Runc"}, {"name": "a", "type": "GVisor"}]}, "Duplicate value"),
        ({"handlers": [{"name": "a", "type": "Kata"}]}, "Unsupported value"),
        ({"handlers": []}, "at least 1"),
        ({"selector": {}}, "selector"),
    ],
)
def test_invalid_noderuntime_is_refused(world: World, spec: dict[str, object], message: str) -> None:
    with pytest.raises(CommandError) as refused:
        world.cluster.kubectl.apply(noderuntime("refused", **spec))
    assert message in refused.value.output


def test_second_noderuntime_reports_the_owner_of_the_node(world: World) -> None:
    handlers = [{"name": "other", "type": "Runc"}]
    world.cluster.kubectl.apply(noderuntime("second", handlers=handlers))
    try:
        degraded = world.cluster.kubectl.wait_condition("noderuntime", "second", "Degraded", timeout=60)
        assert "noderuntime" in degraded["message"]
        assert world.node.name in degraded["message"]
    finally:
        world.cluster.kubectl("delete", "noderuntime", "second", "--timeout=60s")
    steps.wait_ready(world.cluster)


@pytest.mark.parametrize("handler", steps.HANDLERS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"command": ["/there/is/none"]}, "/there/is/none"),
        ({"image": "registry.k8s.io/there-is-none:1"}, "there-is-none"),
    ],
    ids=["command", "image"],
)
def test_bad_pod_is_reported_in_one_line(
    world: World, handler: str, change: dict[str, object], expected: str
) -> None:
    name = f"bad-{next(iter(change))}-{handler}"
    pod = web_pod(name, handler)
    pod["spec"]["containers"][0] |= change
    world.cluster.kubectl.apply(pod)

    def reported() -> str | None:
        events = world.cluster.kubectl.get("events", f"--field-selector=involvedObject.name={name}")
        failed = [entry["message"] for entry in events["items"] if entry["reason"] == "Failed"]
        return next((message for message in failed if expected in message), None)

    message = wait_for("event Failed", reported, timeout=60)
    assert "\n" not in message.strip()
    world.cluster.kubectl("delete", "pod", name)


def test_unknown_handler_error_names_the_handlers(world: World) -> None:
    with cri.connect(world.node, cri.NODERUNTIME) as runtime:
        with pytest.raises(grpc.RpcError) as refused:
            cri.start_pod(runtime, "registry.k8s.io/busybox:1.35", "kata")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert all(handler in str(refused.value.details()) for handler in steps.HANDLERS)


def test_deletion_waits_for_the_pods(world: World) -> None:
    message = steps.delete_blocked(world.cluster, list(steps.HANDLERS))
    assert steps.ORDINARY not in message
    assert steps.log_of(world.cluster, "runc")


def test_deletion_leaves_nothing(world: World, ordinary: steps.Identity) -> None:
    world.cluster.kubectl("delete", "pod", *steps.HANDLERS)
    steps.delete_finishes(world.cluster, world.node)
    assert steps.identity(world.cluster, steps.ORDINARY) == ordinary
    with cri.connect(world.node, cri.CONTAINERD) as runtime:
        assert cri.version(runtime) == "containerd"


def test_helm_uninstall_after_the_deletion_leaves_the_crds_only(world: World) -> None:
    steps.uninstall_with_hooks(world.cluster)
    kubectl = world.cluster.kubectl
    kinds = "deployments,daemonsets,jobs,pods,serviceaccounts,roles,services,configmaps,poddisruptionbudgets"
    # The pod of the last helm test stays for its log.
    expected = {"serviceaccount/default", "configmap/kube-root-ca.crt", "pod/noderuntime-test"}

    def left() -> set[str]:
        return {*kubectl("get", kinds, "-n", steps.NAMESPACE, "-o", "name").split()}

    wait_for("only the namespace's own objects", lambda: left() == expected, timeout=60)
    release = ("-l", "app.kubernetes.io/instance=noderuntime", "-o", "name")
    assert kubectl("get", "clusterroles,clusterrolebindings,validatingadmissionpolicies", *release) == ""
    assert sorted(kubectl("get", "crds", *release).split()) == [
        "customresourcedefinition.apiextensions.k8s.io/noderuntimeinstances.noderuntime.dev",
        "customresourcedefinition.apiextensions.k8s.io/noderuntimes.noderuntime.dev",
    ]
