"""The chart's manifests, as Helm renders them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import ControlPlane, eventually, tool
from release import NAMESPACE, ROOT, render

from noderuntime_operator.crdgen import RESOURCES, crd
from noderuntime_operator.desired import daemon_set
from noderuntime_operator.settings import AgentSettings

CHART = str(ROOT / "charts/noderuntime")

GATES = (
    "monitoring.monitors",
    "monitoring.alerts",
    "monitoring.dashboard",
    "networkPolicy.enabled",
    "resourceQuota.enabled",
)
EVERYTHING = ("--set", ",".join(f"{gate}=true" for gate in GATES))
DOCUMENTED = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/install.md").read_text(), re.DOTALL)
PROMETHEUS_OPERATOR = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}


def objects(*args: str) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(render(*args)) if found]


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("values", [(), EVERYTHING], ids=["default", "everything"])
def test_helm_lint_reports_no_warning(values: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", CHART, "--set", "image.repository=example.test/noderuntime", *values)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


def test_chart_without_an_image_fails_with_its_name() -> None:
    done = helm("template", CHART, "--kube-version=1.36.3")
    assert done.returncode != 0
    assert "image.repository is required" in done.stderr


@pytest.mark.parametrize(
    "value", ["image.pullPolicy=Sometimes", "operator.replicas=0", "image.digest=sha256:1", "crds.keep=maybe"]
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


@pytest.mark.parametrize("values", DOCUMENTED, ids=lambda values: values.partition(":")[0])
def test_values_of_the_documentation_are_valid(values: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(values.replace("sha256:…", "sha256:" + "0" * 64))
    objects("--values", str(file))


def test_every_object_passes_the_api_servers_validation(installed: ControlPlane) -> None:
    served = [o for o in objects(*EVERYTHING) if o["kind"] not in PROMETHEUS_OPERATOR]
    dry = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    answer = installed.kubectl(*dry, stdin=yaml.safe_dump_all(served))
    assert answer.count("(server dry run)") == len(served)


@pytest.mark.parametrize("gate", GATES)
def test_gate_adds_objects_only_when_it_is_open(gate: str) -> None:
    def named(*args: str) -> set[tuple[str, str]]:
        return {(o["kind"], o["metadata"]["name"]) for o in objects(*args)}

    assert named() < named("--set", f"{gate}=true")


def one(kind: str, name: str = "", *args: str) -> dict[str, Any]:
    """Return the only object of a kind (and name) that the chart has with every gate open."""
    found = [o for o in objects(*EVERYTHING, *args) if o["kind"] == kind and name in o["metadata"]["name"]]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def test_monitors_select_the_pods_and_their_ports() -> None:
    deployment = one("Deployment")
    template = deployment["spec"]["template"]
    service = one("Service")
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    monitor = one("ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]

    agent = AgentSettings(namespace=NAMESPACE, image="example.test/n:1")
    agents = daemon_set("a", agent)["spec"]["template"]
    monitor = one("PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= agents["metadata"]["labels"].items()
    names = [port["name"] for port in agents["spec"]["containers"][0]["ports"]]
    assert monitor["podMetricsEndpoints"][0]["port"] in names
    policy = one("NetworkPolicy", "agent")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= agents["metadata"]["labels"].items()


def test_network_policies_select_the_pods_of_the_chart() -> None:
    pods = {
        "operator": one("Deployment")["spec"]["template"],
        "uninstall": one("Job")["spec"]["template"],
        "test": one("Pod"),
    }
    for component, pod in pods.items():
        policy = one("NetworkPolicy", component)["spec"]
        chosen = {
            name
            for name, other in pods.items()
            if policy["podSelector"]["matchLabels"].items() <= other["metadata"]["labels"].items()
        }
        assert chosen == {component}
        ports = {port["name"] for port in pod["spec"]["containers"][0].get("ports", ())}
        opened = {port["port"] for rule in policy.get("ingress", ()) for port in rule["ports"]}
        assert opened == ports


def test_alerts_point_to_their_section() -> None:
    groups = one("PrometheusRule")["spec"]["groups"]
    urls = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    page = "https://github.com/noderuntime/noderuntime/blob/main/docs/alerts.md"
    assert urls == [f"{page}#{section.lower()}" for section in sections]


def test_dashboard_arrives_in_its_config_map_unchanged() -> None:
    data = one("ConfigMap")["data"]["noderuntime.json"]
    assert json.loads(data) == json.loads((ROOT / "charts/noderuntime/files/dashboard.json").read_text())


def test_quota_admits_pods_of_both_priority_classes() -> None:
    quota = one("ResourceQuota")["spec"]
    (scope,) = quota["scopeSelector"]["matchExpressions"]
    assert scope["values"] == ["system-cluster-critical", "system-node-critical"]
    assert quota["hard"] == {"pods": "10000"}


@pytest.mark.parametrize(("role", "patches"), [("view", False), ("edit", True)])
def test_roles_of_users_include_noderuntimes(installed: ControlPlane, role: str, patches: bool) -> None:
    def verbs() -> set[str]:
        rules = installed.get("clusterrole", role)["rules"]
        return {
            verb for rule in rules if "noderuntimes" in rule.get("resources", ()) for verb in rule["verbs"]
        }

    eventually(lambda: "list" in verbs(), f"the role {role} has no NodeRuntimes")
    assert ("patch" in verbs()) == patches


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


def test_second_operator_runs_elsewhere_and_survives_a_drain() -> None:
    deployment = one("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (2, "RollingUpdate")
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    budget = one("PodDisruptionBudget")["spec"]
    for selector in (spread["labelSelector"], budget["selector"]):
        assert selector["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    single = [o["kind"] for o in objects("--set", "operator.replicas=1")]
    assert "PodDisruptionBudget" not in single  # it would make every drain wait for ever


def test_pods_of_hooks_are_confined_and_have_the_charts_image() -> None:
    digest = "sha256:" + "0" * 64
    pods = [
        one("Job", "", "--set", f"image.digest={digest}")["spec"]["template"]["spec"],
        one("Pod", "", "--set", f"image.digest={digest}")["spec"],
        one("Deployment", "", "--set", f"image.digest={digest}")["spec"]["template"]["spec"],
    ]
    for pod in pods:
        (container,) = pod["containers"]
        assert container["image"] == f"example.test/noderuntime@{digest}"
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert pod["securityContext"]["runAsNonRoot"]


def test_roles_grant_no_wildcard_rbac_or_secrets() -> None:
    for role in objects():
        for rule in role.get("rules", []) if role["kind"] in ("Role", "ClusterRole") else []:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
            assert not {"secrets", "pods/exec"} & set(rule["resources"])
            if "serviceaccounts" in rule["resources"]:
                assert (rule["verbs"], rule["resourceNames"]) == (["get"], ["noderuntime-agent"])


def test_agent_role_has_exactly_these_rights() -> None:
    (role,) = [
        o for o in objects() if o["kind"] == "ClusterRole" and o["metadata"]["name"] == "noderuntime-agent"
    ]
    rights = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert rights == {
        ("noderuntimeinstances", "get"),
        ("noderuntimeinstances", "list"),
        ("noderuntimeinstances", "watch"),
        ("noderuntimeinstances/status", "patch"),
    }


def test_examples_pass_the_api_servers_validation(plane: ControlPlane) -> None:
    example = str(ROOT / "examples/noderuntime.yaml")
    assert "created (server dry run)" in plane.kubectl("create", "--dry-run=server", "-f", example)
    spec = yaml.safe_load((ROOT / "examples/noderuntime.yaml").read_text())["spec"]
    for handler in spec["handlers"]:
        name = handler.get("runtimeClassName", handler["name"])
        pod = yaml.safe_load((ROOT / f"examples/pod-{name}.yaml").read_text())
        assert pod["spec"]["runtimeClassName"] == name
