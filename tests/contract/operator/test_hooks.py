"""What the chart's hooks run, with the rights that the chart gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from control_plane import ControlPlane, eventually
from release import NAMESPACE, render
from simulated import Cluster

ABSENT = "no NodeRuntime exists"


class Hook:
    """A verb of the operator's program with the token of a hook's ServiceAccount."""

    def __init__(self, plane: ControlPlane, account: str, directory: Path) -> None:
        token = plane.kubectl("create", "token", account, "-n", NAMESPACE).strip()
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(plane.kubeconfig.read_text().replace("token: admin", f"token: {token}"))
        agent = {"namespace": NAMESPACE, "image": "example.test/noderuntime:test"}
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig), "NODERUNTIME_AGENT": json.dumps(agent)}

    def start(self, verb: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "noderuntime_operator", verb]
        return subprocess.Popen(command, env=self._env, text=True, stdout=subprocess.PIPE)

    def run(self, verb: str) -> tuple[int, str]:
        """Return the exit code and what the user reads."""
        process = self.start(verb)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output


@pytest.fixture(scope="module")
def accounts(installed: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane with the objects that Helm creates for the hooks, but their pods."""
    chart = [o for o in yaml.safe_load_all(render()) if o]
    hooks = [o for o in chart if "helm.sh/hook" in (o["metadata"].get("annotations") or {})]
    rights = yaml.safe_dump_all(o for o in hooks if o["kind"] not in ("Job", "Pod"))
    installed.kubectl("apply", "-f", "-", stdin=rights)
    yield installed
    installed.kubectl("delete", "-f", "-", stdin=rights)


def test_uninstall_is_refused_while_noderuntimes_exist(
    accounts: ControlPlane, cluster: Cluster, tmp_path: Path
) -> None:
    hook = Hook(accounts, "noderuntime-uninstall", tmp_path)
    cluster.node("k1", "k")
    cluster.runtime("k", "k")
    code, output = hook.run("check-uninstall")
    assert code == 1
    assert "NodeRuntimes exist: k." in output
    assert "kubectl delete noderuntimes k\n" in output
    assert "helm uninstall --no-hooks" in output
    # No agent has reported, so nothing holds the deletion but the agent's pod, which no kubelet ends.
    accounts.kubectl("delete", "nr", "k", "--wait=false")

    def gone() -> bool:
        agents = ("-n", NAMESPACE, "-l", "noderuntime.dev/runtime=k", "--grace-period=0", "--force")
        accounts.kubectl("delete", "pods", *agents, check=False)
        return not accounts.get("nr", "k")

    eventually(gone, "the NodeRuntime is not deleted")
    assert hook.run("check-uninstall") == (0, f"{ABSENT}\n")


def test_uninstall_without_rights_is_refused_with_the_cause(accounts: ControlPlane, tmp_path: Path) -> None:
    code, output = Hook(accounts, "noderuntime-agent", tmp_path).run("check-uninstall")
    assert code == 1
    assert 'cannot list resource "noderuntimes"' in output


@pytest.mark.parametrize(
    ("phase", "code", "text"), [("Succeeded", 0, "a pod ran"), ("Failed", 1, "the pod failed: Error")]
)
def test_canaries_run_a_pod_of_every_class_and_delete_it(
    accounts: ControlPlane, cluster: Cluster, tmp_path: Path, phase: str, code: int, text: str
) -> None:
    cluster.node("w1", "w")
    cluster.runtime("w", "w")
    eventually(lambda: accounts.get("runtimeclass", "w-runc"), "no RuntimeClass")
    hook = Hook(accounts, "noderuntime-test", tmp_path)
    canaries = ("-n", NAMESPACE, "-l", "app.kubernetes.io/component=canary")
    with hook.start("canaries") as process:
        eventually(lambda: accounts.get("pods", "", *canaries), "no canary pod")
        (pod,) = accounts.get("pods", "", *canaries)["items"]
        assert pod["spec"]["runtimeClassName"] == "w-runc"
        assert pod["spec"]["containers"][0]["image"] == "example.test/noderuntime:test"
        ended = {"name": "canary", "image": "", "imageID": "", "ready": False, "restartCount": 0}
        reason = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        status = {"phase": phase, "containerStatuses": [ended | {"state": {"terminated": reason}}]}
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        accounts.kubectl("patch", "pod", pod["metadata"]["name"], "-n", NAMESPACE, *patch)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, f"RuntimeClass w-runc: {text}\n")
    assert not accounts.get("pods", "", *canaries)
