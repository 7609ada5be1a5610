"""The chart's manifests, as Helm renders them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml
from control_plane import ControlPlane, tool
from release import NAMESPACE, ROOT, render

from noderuntime_operator.crdgen import RESOURCES, crd
from noderuntime_operator.settings import AgentSettings

CHART = str(ROOT / "charts/noderuntime")


def objects(*args: str) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(render(*args)) if found]


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *args], capture_output=True, text=True, check=False)


def test_helm_lint_reports_no_warning() -> None:
    done = helm("lint", "--strict", CHART, "--set", "image.repository=example.test/noderuntime")
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


def test_chart_without_an_image_fails_with_its_name() -> None:
    done = helm("template", CHART, "--kube-version=1.36.3")
    assert done.returncode != 0
    assert "image.repository is required" in done.stderr


@pytest.mark.parametrize(
    "value", ["image.pullPolicy=Sometimes", "operator.replicas=2", "image.digest=sha256:1", "crds.keep=maybe"]
)
def test_chart_refuses_bad_values_by_name(value: str) -> None:
    done = helm("template", CHART, "--kube-version=1.36.3", "--set", f"image.repository=a.b/c,{value}")
    assert done.returncode != 0
    assert value.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1] in done.stderr


def test_chart_installs_and_keeps_the_models_crds() -> None:
    crds = {o["metadata"]["name"]: o for o in objects() if o["kind"] == "CustomResourceDefinition"}
    for resource in RESOURCES:
        wanted = crd(resource)
        found = crds.pop(wanted["metadata"]["name"])
        assert found["spec"] == wanted["spec"]
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not crds
    assert not [o for o in objects("--set=crds.install=false") if o["kind"] == "CustomResourceDefinition"]


def test_operator_accepts_the_charts_settings() -> None:
    digest = "sha256:" + "0" * 64
    args = ("--set", f"image.digest={digest}", "--set", "image.pullSecrets={one,two}")
    (deployment,) = [o for o in objects(*args) if o["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    agent = AgentSettings.model_validate_json(env["NODERUNTIME_AGENT"])
    assert agent.namespace == NAMESPACE
    assert agent.image == container["image"] == f"example.test/noderuntime@{digest}"
    assert agent.image_pull_secrets == ("one", "two")
    assert set(json.loads(env["NODERUNTIME_AGENT"])) == {
        name if "_" not in name else AgentSettings.model_fields[name].alias
        for name in AgentSettings.model_fields
    }


def test_operator_pod_is_confined() -> None:
    (deployment,) = [o for o in objects() if o["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_roles_grant_no_wildcard_rbac_or_secrets() -> None:
    for role in objects():
        for rule in role.get("rules", []) if role["kind"] in ("Role", "ClusterRole") else []:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
            assert not {"secrets", "serviceaccounts", "pods/exec"} & set(rule["resources"])


def test_agent_role_has_exactly_these_rights() -> None:
    (role,) = [
        o for o in objects() if o["kind"] == "ClusterRole" and o["metadata"]["name"] == "noderuntime-agent"
    ]
    rights = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert rights == {
        ("noderuntimeinstances", "get"),
        ("noderuntimeinstances", "watch"),
        ("noderuntimeinstances/status", "patch"),
    }


def test_examples_pass_the_api_servers_validation(plane: ControlPlane) -> None:
    example = str(ROOT / "examples/noderuntime.yaml")
    assert "created (server dry run)" in plane.kubectl("create", "--dry-run=server", "-f", example)
    spec = yaml.safe_load((ROOT / "examples/noderuntime.yaml").read_text())["spec"]
    for handler in spec["handlers"]:
        pod = yaml.safe_load((ROOT / f"examples/pod-{handler['name']}.yaml").read_text())
        assert pod["spec"]["runtimeClassName"] == handler["name"]
