from __future__ import annotations

import pytest
from builders import node, spec

from noderuntime_operator.agent_pod import HOST_MOUNTS
from noderuntime_operator.api.revision import Handler
from noderuntime_operator.api.selectors import LabelSelector
from noderuntime_operator.cluster_state import RevisionView, matches
from noderuntime_operator.desired import (
    controller_revision,
    daemon_set,
    instance,
    instance_spec,
    revision_of,
    runtime_class,
)
from noderuntime_operator.settings import AgentSettings

AGENT = AgentSettings(namespace="ns", image="image:1", image_pull_secrets=("secret",))


def test_runtime_class_selects_proven_nodes() -> None:
    handler = Handler.model_validate(
        {"name": "gvisor", "type": "GVisor", "runtimeClassName": "safe", "overhead": {"memory": "32Mi"}}
    )
    found = runtime_class("rt", handler)
    assert (found["metadata"]["name"], found["handler"]) == ("safe", "gvisor")
    assert found["scheduling"]["nodeSelector"] == {
        "noderuntime.dev/runtime": "rt",
        "handler.noderuntime.dev/gvisor": "true",
    }
    assert found["overhead"] == {"podFixed": {"memory": "32Mi"}}
    assert "overhead" not in runtime_class("rt", Handler(name="runc", type="Runc"))


def test_agent_pod_has_no_capability_and_explains_each_mount() -> None:
    template = daemon_set("rt", AGENT)["spec"]["template"]
    (container,) = template["spec"]["containers"]
    context = container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not context["privileged"]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & template["spec"].keys()
    host_paths = [v["hostPath"]["path"] for v in template["spec"]["volumes"] if "hostPath" in v]
    reasons = template["metadata"]["annotations"].values()
    assert all(any(reason.startswith(f"{path}: ") for reason in reasons) for path in host_paths)
    assert {mount.path for mount in HOST_MOUNTS} == set(host_paths)


def test_agents_and_revisions_are_owned_by_the_releases_service_account() -> None:
    view = RevisionView("rt-1", revision_of(spec()), 1)
    for found in (daemon_set("rt", AGENT, "uid-1"), controller_revision("rt", view, AGENT, "uid-1")):
        assert found["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "ServiceAccount", "name": "noderuntime-agent", "uid": "uid-1"}
        ]
    assert "ownerReferences" not in daemon_set("rt", AGENT)["metadata"]


def test_daemon_set_selects_claimed_nodes_and_leaves_updates_alone() -> None:
    found = daemon_set("rt", AGENT)
    assert found["spec"]["template"]["spec"]["nodeSelector"] == {"noderuntime.dev/runtime": "rt"}
    assert found["spec"]["updateStrategy"] == {"type": "OnDelete"}
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_instance_is_owned_by_its_node() -> None:
    found = instance(node("n1"), instance_spec("n1", "rt", revision_of(spec())))
    assert found["metadata"]["name"] == "n1"
    assert found["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-n1"}
    ]
    assert found["spec"]["handlers"] == [{"name": "runc", "type": "Runc"}]


def test_instance_gets_the_daemons_own_settings() -> None:
    chosen = {"logLevel": "Debug", "gvisor": {"platform": "KVM"}}
    found = instance(node("n1"), instance_spec("n1", "rt", revision_of(spec(runtime=chosen))))
    assert found["spec"]["runtime"]["logLevel"] == "Debug"
    assert found["spec"]["runtime"]["gvisor"]["platform"] == "KVM"
    assert "runtime" not in instance(node("n1"), instance_spec("n1", "rt", revision_of(spec())))["spec"]


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, False),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"a": "1", "c": "1"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["0", "1"]}]}, True),
        ({"matchExpressions": [{"key": "c", "operator": "In", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "c", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selector_matches_as_in_kubernetes(selector: dict[str, object], selected: bool) -> None:
    assert matches(LabelSelector.model_validate(selector), {"a": "1", "b": ""}) is selected
