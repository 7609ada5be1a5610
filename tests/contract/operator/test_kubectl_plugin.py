"""``kubectl noderuntime``, run by kubectl, against a real kube-apiserver. No operator runs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from control_plane import ControlPlane, eventually, running, tool
from release import ROOT

API = "noderuntime.dev/v1alpha1"
OWNER = "noderuntime.dev/runtime"
REVISION = "noderuntime.dev/revision"
TIME = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Plugin:
    """kubectl with the plugin on PATH."""

    plane: ControlPlane
    env: dict[str, str]

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        command = [tool("kubectl"), "noderuntime", *args]
        return subprocess.Popen(
            command, env=self.env | options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *args: str, **options: Any) -> tuple[int, str, str]:
        """Return exit status, output and errors."""
        process = self.start(*args, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def json(self, *args: str) -> dict[str, Any]:
        status, out, err = self.run(*args, "-o", "json")
        assert (status, err) == (0, "")
        return dict(json.loads(out))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    """The plugin with a control plane that has no CRDs."""
    directory = tmp_path_factory.mktemp("plugin")
    programs = {"kubectl-noderuntime": "__main__", "kubectl_complete-noderuntime": "complete"}
    for name, module in programs.items():
        program = directory / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\nfrom kubectl_noderuntime.{module} import main\nmain()\n")
        program.chmod(0o755)
    with running(directory) as plane:
        path = f"{directory / 'bin'}:{os.environ['PATH']}"
        yield Plugin(plane, {**os.environ, "PATH": path, "KUBECONFIG": str(plane.kubeconfig)})


@pytest.fixture(scope="module")
def without_crds(bare: Plugin) -> list[tuple[int, str, str]]:
    """What reading and writing commands report before the CRDs exist."""
    return [bare.run(*command) for command in (["status"], ["pause", "a"], ["watch"], ["retry", "a"])]


@pytest.fixture(scope="module")
def plugin(bare: Plugin, without_crds: object) -> Plugin:
    """The plugin with a cluster of one NodeRuntime with two nodes, and a namespace ``shop``."""
    plane = bare.plane
    plane.kubectl("apply", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    plane.kubectl("create", "namespace", "shop")
    eventually(lambda: plane.get("serviceaccount", "default", "-n", "shop"), "no ServiceAccount in shop")
    spec = {"selector": {"matchLabels": {"pool": "a"}}, "handlers": [{"name": "gvisor", "type": "GVisor"}]}
    plane.apply({"apiVersion": API, "kind": "NodeRuntime", "metadata": {"name": "default"}, "spec": spec})
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "NodesFailing",
        "message": "1 of 2 nodes are ready",
    }
    wave = {"phase": "Stopped", "nodes": 2, "updated": 2, "ready": 1, "failed": 1, "outside": 0}
    plane.patch_status(
        "nr",
        "default",
        {
            "desiredNodes": 2,
            "readyNodes": 1,
            "currentRevision": "default-1",
            "updateRevision": "default-2",
            "wave": wave,
            "conditions": [{**ready, "lastTransitionTime": TIME}],
        },
    )
    instance(plane, "n1", "Ready")
    instance(plane, "n2", "Degraded")
    for number, labels in ((1, {REVISION: "1"}), (2, {REVISION: "2"}), (3, {})):
        revision(plane, f"default-{number}", number, labels)
    return bare


def instance(plane: ControlPlane, name: str, phase: str) -> None:
    """Create the instance of a node, with the report of its agent."""
    spec = {
        "nodeName": name,
        "runtimeName": "default",
        "kubelet": {"mode": "Delegate", "switchTimeoutSeconds": 120},
        "handlers": [{"name": "gvisor", "type": "GVisor"}],
    }
    meta = {"name": name, "labels": {OWNER: "default"}}
    plane.apply({"apiVersion": API, "kind": "NodeRuntimeInstance", "metadata": meta, "spec": spec})
    state, message = ("Ready", "started") if phase == "Ready" else ("Broken", "runsc: \x1b[31mno memory")
    handler = {"name": "gvisor", "state": state, "reason": "HandlerBroken", "message": message}
    status = {"observedGeneration": 1, "phase": phase, "runtimeVersion": "0.1.0", "handlers": [handler]}
    plane.patch_status("nri", name, status)


def revision(plane: ControlPlane, name: str, number: int, labels: dict[str, str]) -> None:
    """Create a ControllerRevision; without labels it is like those of the agents' DaemonSet."""
    plane.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": name, "namespace": "default", "labels": {OWNER: "default", **labels}},
            "revision": number,
            "data": {"image": f"example.test/noderuntime:{number}"},
        }
    )


def pod(plane: ControlPlane, name: str, runtime_class: str) -> None:
    spec = {"runtimeClassName": runtime_class, "containers": [{"name": "c", "image": "example.test/x"}]}
    plane.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}
    )


def runtime_class(plane: ControlPlane, name: str) -> None:
    """Create a RuntimeClass as the operator does."""
    selector = {OWNER: "default", "handler.noderuntime.dev/gvisor": "true"}
    plane.apply(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": name, "labels": {OWNER: "default"}},
            "handler": "gvisor",
            "scheduling": {"nodeSelector": selector},
        }
    )


def test_cluster_without_crds_is_one_line(without_crds: list[tuple[int, str, str]]) -> None:
    message = "error: the cluster has no NodeRuntimes: install the chart, or select it with --context\n"
    assert without_crds == [(1, "", message)] * 4


def test_status_in_a_pipe_is_a_plain_tree(plugin: Plugin) -> None:
    assert plugin.run("status") == (
        0,
        "NodeRuntime default: 1 of 2 nodes ready\n"
        "├── conditions\n"
        "│   └── Ready False   NodesFailing: 1 of 2 nodes are ready\n"
        "├── rollout: Stopped, 2 of 2 nodes updated, 1 ready, 1 failed\n"
        "│   └── revision default-2, from default-1\n"
        "├── handlers\n"
        "│   └── gvisor (GVisor, RuntimeClass gvisor): Ready on 1, Broken on 1\n"
        "└── 2 nodes, as their agents report\n"
        "    ├── 1 Degraded (HandlerBroken) on 0.1.0: n2\n"
        "    └── 1 Ready on 0.1.0: n1\n",
        "",
    )


def test_status_json_has_every_node(plugin: Plugin) -> None:
    (found,) = plugin.json("status", "default")["noderuntimes"]
    assert (found["name"], found["desiredNodes"], found["wave"]["phase"]) == ("default", 2, "Stopped")
    assert [(node["name"], node["phase"]) for node in found["nodes"]] == [("n1", "Ready"), ("n2", "Degraded")]


def test_pause_and_resume_set_the_field_as_the_plugin(plugin: Plugin) -> None:
    assert plugin.run("pause", "default")[0] == 0
    found = plugin.plane.get("nr", "default", "--show-managed-fields")
    assert found["spec"]["update"]["paused"] is True
    managers = {one["manager"] for one in found["metadata"]["managedFields"] if "f:paused" in json.dumps(one)}
    assert managers == {"kubectl-noderuntime"}
    assert plugin.json("status")["noderuntimes"][0]["paused"] is True
    assert plugin.run("resume", "noderuntime/default") == (
        0,
        "NodeRuntime default: rollout continues (kubectl noderuntime watch default shows it)\n",
        "",
    )
    assert plugin.plane.get("nr", "default")["spec"]["update"]["paused"] is False


def test_retry_sets_a_new_value_on_node_or_runtime(plugin: Plugin) -> None:
    key = "noderuntime.dev/retry"
    assert plugin.run("retry", "n2")[0] == 0
    assert plugin.plane.get("nri", "n2")["metadata"]["annotations"][key].startswith("20")
    assert plugin.run("retry", "noderuntime/default")[0] == 0
    assert plugin.plane.get("nr", "default")["metadata"]["annotations"][key].startswith("20")
    assert plugin.run("retry", "n9") == (
        1,
        "",
        'error: noderuntimeinstances.noderuntime.dev "n9" not found (check the name, --namespace and'
        " --context)\n",
    )


def test_rollback_pins_the_last_good_revision_until_cancelled(plugin: Plugin) -> None:
    def pinned() -> str | None:
        found = plugin.plane.get("nr", "default")["metadata"].get("annotations", {})
        return found.get("noderuntime.dev/rollback-to")  # type: ignore[no-any-return]

    assert plugin.run("rollback", "default")[0] == 0
    assert pinned() == "default-1"
    states = {one["name"]: one["state"] for one in plugin.json("history", "default")["revisions"]}
    assert states == {"default-2": "target", "default-1": "current, rolled back to"}
    assert plugin.run("rollback", "default", "--to", "default-2")[0] == 0
    assert pinned() == "default-2"
    assert plugin.run("rollback", "default", "--to", "default-9") == (
        1,
        "",
        "error: NodeRuntime default has no revision default-9 (kept revisions: default-2, default-1)\n",
    )
    assert plugin.run("rollback", "default", "--cancel")[0] == 0
    assert pinned() is None


def test_why_names_a_class_that_was_deleted(plugin: Plugin) -> None:
    runtime_class(plugin.plane, "gone")
    pod(plugin.plane, "web", "gone")
    plugin.plane.kubectl("delete", "runtimeclass", "gone")
    assert plugin.json("why", "pod/web", "--namespace", "shop") == {
        "pod": "shop/web",
        "node": None,
        "cause": "RuntimeClassMissing",
        "text": "Pod shop/web is pending: its RuntimeClass gone does not exist. No NodeRuntime has a"
        " handler for it: correct runtimeClassName, or add the handler to one.",
    }


def test_why_explains_a_handler_without_nodes(plugin: Plugin) -> None:
    runtime_class(plugin.plane, "gvisor")
    pod(plugin.plane, "sandboxed", "gvisor")
    assert plugin.run("-n", "shop", "why", "sandboxed") == (
        0,
        "Pod shop/sandboxed is pending: no node offers the handler gvisor. The nodes of NodeRuntime"
        " default: 1 Degraded (HandlerBroken) on 0.1.0, 1 Ready on 0.1.0. Node n2 reports: handler gvisor:"
        " runsc:"
        " \\x1b[31mno memory. NodeRuntime default is not Ready: NodesFailing: 1 of 2 nodes are ready.\n",
        "",
    )


def test_user_of_a_namespace_gets_what_it_may_read(plugin: Plugin, tmp_path: Path) -> None:
    plane = plugin.plane
    runtime_class(plane, "gvisor")
    pod(plane, "mine", "gvisor")
    plane.kubectl("create", "role", "reader", "-n", "shop", "--verb=get,list", "--resource=pods,events")
    plane.kubectl(
        "create", "rolebinding", "reader", "-n", "shop", "--role=reader", "--serviceaccount=shop:default"
    )
    token = plane.kubectl("create", "token", "default", "-n", "shop").strip()
    config = tmp_path / "kubeconfig"
    config.write_text(plane.kubeconfig.read_text().replace("token: admin", f"token: {token}"))
    assert plugin.run("why", "mine", "-n", "shop", "--kubeconfig", str(config)) == (
        0,
        "Pod shop/mine is pending: the scheduler default-scheduler has not handled it yet: check that it"
        " runs. Your"
        " permissions do not allow reading Node, NodeRuntime, NodeRuntimeInstance, RuntimeClass.\n",
        "",
    )
    status, out, err = plugin.run("status", KUBECONFIG=str(config))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: noderuntime")
    assert err.endswith("at the cluster scope (ask an administrator for a role that allows it)\n")
    config.write_text(plane.kubeconfig.read_text().replace("token: admin", "token: wrong"))
    assert plugin.run("status", "--kubeconfig", str(config)) == (
        1,
        "",
        "error: the API server does not accept your credentials (log in again, or give --context)\n",
    )


def test_kubectl_completes_names_of_objects(plugin: Plugin) -> None:
    for words, name in ((["pause"], "default"), (["retry"], "n2"), (["history"], "default")):
        command = [tool("kubectl"), "__complete", "noderuntime", *words, name[0]]
        done = subprocess.run(command, env=plugin.env, capture_output=True, text=True, check=True)
        assert name in done.stdout.splitlines()
        assert done.stdout.endswith(":4\n")


def test_watch_on_a_terminal_redraws_the_tree(plugin: Plugin) -> None:
    ours, theirs = pty.openpty()
    command = [tool("kubectl"), "noderuntime", "watch"]
    with (
        open(ours, "rb", buffering=0) as screen,
        subprocess.Popen(
            command, env={**plugin.env, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process,
    ):
        os.close(theirs)
        seen = screen_until(screen, "1 Ready on 0.1.0")
        plugin.run("pause", "default")
        try:
            redrawn = screen_until(screen, "1 of 2 nodes ready, paused")
        finally:
            process.send_signal(signal.SIGINT)
            plugin.run("resume", "default")
    assert process.returncode == 130
    assert "NodeRuntime \x1b[1mdefault" in seen
    assert "\x1b[1A" in redrawn


def screen_until(screen: IO[bytes], text: str) -> str:
    """Return what a terminal received up to a text."""
    seen = ""
    while text not in seen:
        seen += screen.read(4096).decode(errors="replace")
    return seen


def test_watch_in_a_pipe_prints_changes_until_interrupted(plugin: Plugin) -> None:
    with plugin.start("watch", "default", "-o", "json") as process:
        lines = map(json.loads, process.stdout or ())
        try:
            first = next(line for line in lines if line["field"] == "connection")
            assert (first["object"], first["value"]) == ("apiserver", "up")
            instance(plugin.plane, "n1", "Degraded")
            changed = next(line for line in lines if line["object"] == "node/n1")
            assert changed["value"] == "Degraded (HandlerBroken): handler gvisor: runsc: \\x1b[31mno memory"
        finally:
            process.send_signal(signal.SIGINT)
            instance(plugin.plane, "n1", "Ready")
    assert process.returncode == 130
