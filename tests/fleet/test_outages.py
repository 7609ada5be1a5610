"""Agents die, nodes reboot, the API server is away: during an upgrade or a change of the spec."""

from __future__ import annotations

import json
import time

import pytest

from harness import processes
from harness.kubectl import Manifest
from harness.node import Node
from harness.run import wait_for
from story import steps
from story.fleet import KINDS, UPDATE, Fleet, Version

OPERATOR = "app.kubernetes.io/component=operator"
OUTAGE_SECONDS = 20
"""Shorter than the time after which the control plane takes silent nodes for NotReady."""


def test_upgrade_survives_killed_agents(fleet: Fleet, target: Version) -> None:
    fleet.upgrade(target)
    changing = fleet.wait_changing()
    for node in fleet.nodes:
        node.exec("pkill", "-9", "-f", "noderuntime agent$")
    fleet.wait_settled(target)
    assert fleet.instance(changing.name)["bundleDigest"] == target.digest


def test_upgrade_survives_a_power_cut_of_a_node(fleet: Fleet, target: Version, excused: set[str]) -> None:
    fleet.upgrade(target)
    node = fleet.wait_changing()
    excused.add(node.name)
    node.reboot(hard=True)
    fleet.wait_settled(target)


def test_upgrade_survives_an_outage_of_the_api_server(fleet: Fleet, target: Version) -> None:
    fleet.upgrade(target)
    fleet.wait_changing()
    processes.stop(fleet.cluster.control.directory, "kube-apiserver")
    time.sleep(OUTAGE_SECONDS)
    fleet.cluster.control.up()
    fleet.wait_settled(target)


def test_upgrade_survives_the_operators_death(fleet: Fleet, target: Version) -> None:
    fleet.upgrade(target)
    first = fleet.wait_first(target)
    fleet.kubectl(
        *(
            "delete",
            "pod",
            "-n",
            steps.NAMESPACE,
            "-l",
            OPERATOR,
            "--force",
            "--grace-period=0",
            "--wait=false",
        )
    )
    fleet.wait_settled(target)
    assert fleet.instance(first.name)["bundleDigest"] == target.digest


def test_node_that_is_off_is_named_and_caught_up(fleet: Fleet, excused: set[str]) -> None:
    first, off, last = fleet.nodes
    others = (first, last)
    excused.add(off.name)
    off.stop()
    fleet.kubectl.wait_condition("node", off.name, "Ready", status="Unknown", timeout=120)
    try:
        for seconds in (61, 62):
            fleet.patch({"kubelet": {"switchTimeoutSeconds": seconds}})
            for node in others:
                fleet.wait_applied(node, switchTimeoutSeconds=seconds)
        wait_for("the node that is off", lambda: named(fleet, off), timeout=90, every=1)
        assert fleet.status()["readyNodes"] == len(others)
    finally:
        off.network.renew_node(off.name, off.number)
        off.start()
    fleet.wait_applied(off, switchTimeoutSeconds=62)
    fleet.start_pods(*KINDS)  # the control plane deletes pods of a node that is off for minutes


def named(fleet: Fleet, node: Node) -> bool:
    """Return whether the NodeRuntime's status counts and names a node that is off."""
    status = fleet.status()
    outside = [{"name": node.name, "reason": "NotReady"}]
    return status.get("unreachableNodes") == 1 and status.get("outsideNodes") == outside


def test_refused_node_patch_does_not_hold_up_the_others(fleet: Fleet) -> None:
    refused, *others = fleet.nodes
    fleet.kubectl.apply(*policy(refused))
    handlers = [{"name": "runc", "type": "Runc"}, {"name": "gvisor", "type": "GVisor"}]
    label = "handler.noderuntime.dev/extra"
    try:
        wait_for("the policy", lambda: is_refused(fleet, refused), timeout=60, every=1)
        fleet.patch({"handlers": [*handlers, {"name": "extra", "type": "Runc"}]})
        for node in others:
            wait_label(fleet, node, label)
        degraded = fleet.wait_condition("Degraded", text="Refused")
        assert refused.name in degraded["message"]
    finally:
        fleet.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "refuse")
    fleet.wait_settled()
    wait_label(fleet, refused, label)
    fleet.patch({"handlers": handlers})
    for node in fleet.nodes:
        wait_label(fleet, node, label, there=False)


def wait_label(fleet: Fleet, node: Node, label: str, there: bool = True) -> None:
    """Wait until a Node has, or does not have, a label."""

    def probe() -> bool:
        return (label in fleet.kubectl.get("node", node.name)["metadata"]["labels"]) is there

    wait_for(f"{label} of {node.name}: {there}", probe, timeout=200, every=1)


def is_refused(fleet: Fleet, node: Node) -> bool:
    """Return whether the policy is in force: it takes seconds."""
    operator = f"--as=system:serviceaccount:{steps.NAMESPACE}:noderuntime-operator"
    argv = ("label", "node", node.name, "noderuntime.dev/probe=true", "--dry-run=server", operator)
    try:
        fleet.kubectl(*argv, "--as-group=system:masters")
    except RuntimeError as error:
        return "refused by the test" in str(error)
    return False


def policy(node: Node) -> tuple[Manifest, Manifest]:
    """Return a policy, as a webhook of another team could be, that refuses the operator one node's labels."""
    resource = {"apiGroups": [""], "apiVersions": ["*"], "resources": ["nodes"], "operations": ["UPDATE"]}
    ours = "request.userInfo.username.endsWith(':noderuntime-operator')"
    return (
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "refuse"},
            "spec": {
                "matchConstraints": {"resourceRules": [resource]},
                "matchConditions": [{"name": "operator", "expression": ours}],
                "validations": [
                    {
                        "expression": f"object.metadata.name != {json.dumps(node.name)}",
                        "message": "refused by the test",
                    }
                ],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "refuse"},
            "spec": {"policyName": "refuse", "validationActions": ["Deny"]},
        },
    )


def test_full_disk_stops_the_upgrade_of_its_node_alone(fleet: Fleet) -> None:
    target = fleet.other_version("7" * 16, {})  # nodes keep the version before: a return needs no space
    node = fleet.nodes[-1]
    node.exec("sh", "-c", "fallocate -l $(($(stat -f -c %a*%S /opt) - 40000000)) /opt/ballast")
    fleet.patch({"update": {"rollback": "Never"}})
    try:
        fleet.upgrade(target)
        state = wait_for("a full disk", lambda: no_space(fleet, node), timeout=200, every=1)
        assert state["bundleDigest"] == fleet.version.digest
        assert fleet.wait_condition("Degraded", text="No space left")
    finally:
        node.exec("rm", "/opt/ballast")
    fleet.wait_settled(target)
    fleet.patch({"update": UPDATE})


def no_space(fleet: Fleet, node: Node) -> dict[str, object] | None:
    """Return the status of an instance that reports a full disk."""
    state = fleet.instance(node.name)
    return state if "No space left" in str(state["message"]) else None


@pytest.mark.quick
def test_missing_image_is_reported_within_a_minute(fleet: Fleet) -> None:
    missing = f"{fleet.version.image.rpartition(':')[0]}:missing"
    settings = operator_settings(fleet)
    try:
        set_operator_settings(fleet, {**settings, "image": missing})
        wait_for("the canary", lambda: missing in wanted_images(fleet), timeout=90, every=0.5)
        began = time.monotonic()
        degraded = fleet.wait_condition("Degraded", text="AgentImagePull")
        assert time.monotonic() - began < 60
        assert missing in degraded["message"]
        assert {fleet.instance(node.name)["phase"] for node in fleet.nodes} == {"Ready"}
    finally:
        set_operator_settings(fleet, settings)


def wanted_images(fleet: Fleet) -> set[str]:
    """Return the agents' images that the instances require."""
    return {one["spec"].get("image", "") for one in fleet.kubectl.get("noderuntimeinstances")["items"]}


def operator_settings(fleet: Fleet) -> Manifest:
    """Return the agents' settings in the environment of the operator."""
    found = fleet.kubectl.get("deployment", "noderuntime-operator", "-n", steps.NAMESPACE)
    environment = found["spec"]["template"]["spec"]["containers"][0]["env"]
    value = next(one["value"] for one in environment if one["name"] == "NODERUNTIME_AGENT")
    settings: Manifest = json.loads(value)
    return settings


def set_operator_settings(fleet: Fleet, settings: Manifest) -> None:
    """Restart the operator with other settings of the agents, and wait until it runs."""
    variable = f"NODERUNTIME_AGENT={json.dumps(settings)}"
    deployment = ("deployment/noderuntime-operator", "-n", steps.NAMESPACE)
    fleet.kubectl("set", "env", *deployment, variable)
    fleet.kubectl("rollout", "status", *deployment, "--timeout=90s")
