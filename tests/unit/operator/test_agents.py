"""The agents' pods and the history of rollouts, read from and written to an API server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import instance, node, runtime, world
from fakeapi import FakeApi

from noderuntime_operator.api.base import Condition
from noderuntime_operator.api.revision import Revision
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.apply import Applier
from noderuntime_operator.cluster_state import AgentPodView, ImagePullView, InstanceView, OtherAgentsView
from noderuntime_operator.desired import controller_revision, revision_of
from noderuntime_operator.events import post_events
from noderuntime_operator.kube import Kube
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.observe import Caches, observe
from noderuntime_operator.rollout import agents_to_search, plan
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.views import agent_pod_view, node_view, revision_view, runtime_view
from noderuntime_operator.writes import Writer

AGENT = AgentSettings(namespace="ns", image="image:2")
PODS = "/api/v1/namespaces/ns/pods"
REVISIONS = "/apis/apps/v1/namespaces/ns/controllerrevisions"
DAEMON_SETS = "/apis/apps/v1/namespaces/ns/daemonsets"
INSTANCES = "/apis/noderuntime.dev/v1alpha1/noderuntimeinstances"
EVENTS = "/api/v1/namespaces/default/events"
OTHERS = OtherAgentsView("old", "noderuntime-agent-rt", "uid-x")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def given(image: str = "image:2", reported: str | None = "image:1", **view: Any) -> InstanceView:
    """Return an instance that was given an image and whose agent reports another."""
    found = instance("n1", generation=2, agentImage=reported)
    spec = found.spec.model_copy(update={"image": image})
    return replace(found, spec=spec, **{"taken": NOW, **view})


@pytest.mark.parametrize(
    ("view", "searched"),
    [
        (given(), True),
        (given(reported="image:2"), False),
        (given(reported="image:2", taken=NOW - timedelta(minutes=5)), True),
        (replace(given(), generation=1), False),
        (replace(given(), status=instance("n1", phase=None).status), False),
    ],
    ids=["another image", "right image", "silent", "observed", "first agent is starting"],
)
def test_only_nodes_with_another_agent_are_searched(view: InstanceView, searched: bool) -> None:
    state = replace(world(node("n1"), view), now=NOW)
    assert agents_to_search(runtime(), state) == ({"n1"} if searched else set())


def test_node_that_is_off_is_not_searched() -> None:
    state = replace(world(node("n1", ready=False), given()), now=NOW)
    assert not agents_to_search(runtime(), state)


def caches(kube: Kube, view: InstanceView, *pods: AgentPodView) -> Caches:
    found = Caches.over(kube, {}, Metrics())
    found.nodes.views["n1"] = node("n1")
    found.instances.views["n1"] = view
    found.agent_pods.views |= {pod.name: pod for pod in pods}
    return found


async def test_observe_reads_what_an_agents_replacement_needs() -> None:
    api = FakeApi()
    revision = plan(runtime(), world()).store
    assert revision
    manifest = controller_revision("rt", revision, AGENT)
    api.put(REVISIONS, manifest["metadata"].pop("name"), **manifest)
    api.put("/api/v1/namespaces/ns/serviceaccounts", "noderuntime-agent", metadata={"uid": "account"})
    api.objects["/apis/apps/v1/daemonsets"] = {
        "x": {"metadata": {"namespace": "old", "name": "noderuntime-agent-rt", "uid": "uid-x"}},
        "y": {"metadata": {"namespace": "ns", "name": "noderuntime-agent-rt", "uid": "uid-y"}},
    }
    old = AgentPodView("agent-1", "u1", "n1", "image:1", "account", "rt")
    lost = AgentPodView("agent-2", "u2", "n2", "image:2", "another account", "rt")
    other = AgentPodView("agent-3", "u3", "n1", "image:1", "account", "other")
    right = given(reported="image:2", taken=datetime.now(UTC))
    async with api.serving() as kube:
        found = await observe(kube, caches(kube, given(), old, lost, other), runtime(), AGENT)
        later = await observe(kube, caches(kube, right, old, lost), runtime(), AGENT)
    assert found.agent_pods == (old, lost)
    assert later.agent_pods == (lost,)
    assert (found.revisions, found.service_account) == ({revision.name: revision}, "account")
    assert (found.agent_image, found.other_agents) == ("image:2", (OTHERS,))
    assert api.count("GET", PODS) == 0


async def test_pod_with_a_wrong_image_is_replaced_at_once_after_its_correction() -> None:
    api = FakeApi()
    for path in (REVISIONS, "/apis/apps/v1/daemonsets"):
        api.objects[path] = {}
    pull = ImagePullView("n1", "image:1", "ErrImagePull", "not found")
    stuck = AgentPodView("agent-1", "u1", "n1", "image:1", "", "rt", pull)
    first = replace(given(taken=datetime.now(UTC)), status=instance("n1", phase=None).status)
    async with api.serving() as kube:
        found = await observe(kube, caches(kube, first, stuck), runtime(), AGENT)
    assert plan(runtime(), found).replace == (stuck,)
    assert plan(runtime(deleting=True), found).replace == (stuck,)
    wrong = replace(found, agent_image="image:1")
    assert plan(runtime(), wrong).replace == plan(runtime(deleting=True), wrong).replace == ()


async def test_observe_dates_the_last_outage() -> None:
    api, now = FakeApi(), asyncio.get_running_loop().time()
    for path in (REVISIONS, "/apis/apps/v1/daemonsets"):
        api.objects[path] = {}
    async with api.serving() as kube:
        seen = caches(kube, given())
        assert (await observe(kube, seen, runtime(), AGENT)).outage is None
        seen.instances.outage = (now - 100, now)
        began, ended = (await observe(kube, seen, runtime(), AGENT)).outage or (NOW, NOW)
    assert abs(datetime.now(UTC) - ended) < timedelta(seconds=5)
    assert abs(ended - began - timedelta(seconds=100)) < timedelta(milliseconds=1)


def test_agents_pod_names_its_failed_pull() -> None:
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    view = agent_pod_view(
        {
            "metadata": {
                "name": "agent-1",
                "uid": "u",
                "resourceVersion": "1",
                "labels": {"noderuntime.dev/runtime": "rt"},
            },
            "spec": {"nodeName": "n1", "containers": [{"image": "image:1"}]},
            "status": {"containerStatuses": [{"image": "image:1", "state": {"waiting": waiting}}]},
        }
    )
    assert view.pull == ImagePullView("n1", "image:1", "ErrImagePull", "not found")


def applying(kube: Kube) -> Applier:
    return Applier(kube, AGENT, Writer(asyncio.get_running_loop().time, lambda: None))


async def test_stored_revision_that_cannot_be_read_is_replaced() -> None:
    api = FakeApi()
    for path in (REVISIONS, DAEMON_SETS, INSTANCES):
        api.objects[path] = {}
    api.refusals["POST", REVISIONS] = [409]
    state = replace(world(), now=NOW)
    async with api.serving() as kube:
        todo = plan(runtime(), state)
        await applying(kube).apply(runtime(), state, todo)
    sent = [method for method, path in api.requests if path.startswith(REVISIONS)]
    assert sent == ["POST", "DELETE", "POST"]


async def test_deletion_creates_lost_agents_but_no_runtime_class() -> None:
    api, going = FakeApi(), runtime(deleting=True)
    for path in (DAEMON_SETS, INSTANCES):
        api.objects[path] = {}
    state = replace(world(node("n1"), instance("n1")), now=NOW, service_account="account")
    async with api.serving() as kube:
        await applying(kube).apply(going, state, plan(going, state))
    assert list(api.objects[DAEMON_SETS]) == ["noderuntime-agent-rt"]
    assert not any("runtimeclasses" in path for _, path in api.requests)


async def test_apply_stores_the_revision_and_replaces_the_agent() -> None:
    api = FakeApi()
    for path in (PODS, REVISIONS, DAEMON_SETS, INSTANCES):
        api.objects[path] = {}
    old = AgentPodView("agent-1", "uid-1", "n1", "image:1")
    state = replace(world(node("n1"), given()), now=NOW, agent_image="image:2", service_account="account")
    asked = replace(runtime(), retry="again")
    async with api.serving() as kube:
        applier = applying(kube)
        todo = plan(asked, replace(state, agent_pods=(old,), other_agents=(OTHERS,)))
        await applier.apply(asked, state, todo)
        new = plan(
            asked, replace(world(node("n1"), instance("n1", "Failed")), now=NOW, agent_image="image:2")
        )
        await applier.apply(asked, state, new)
    (revision,) = api.objects[REVISIONS]
    (template,) = [body["spec"]["template"] for body in api.objects[DAEMON_SETS].values()]
    (container,) = template["spec"]["containers"]
    assert revision == todo.target.name
    assert {"name": "NODERUNTIME_IMAGE", "value": "image:2"} in container["env"]
    assert template["metadata"]["labels"]["noderuntime.dev/service-account"] == "account"
    assert ("DELETE", f"{PODS}/agent-1") in api.requests
    assert ("DELETE", "/apis/apps/v1/namespaces/old/daemonsets/noderuntime-agent-rt") in api.requests
    paths = [path.split("?")[0] for _, path in api.requests]
    assert paths.index(REVISIONS) < paths.index(f"{INSTANCES}/n1")
    written = api.objects[INSTANCES]["n1"]
    assert written["spec"]["image"] == "image:2"
    assert written["metadata"]["annotations"] == {
        "noderuntime.dev/taken": "2026-01-01T00:00:00Z",
        "noderuntime.dev/failed-before": "true",
        "noderuntime.dev/retry": "again",
    }


def test_agents_image_is_the_one_before_a_webhook_changed_it() -> None:
    named = {"name": "NODERUNTIME_IMAGE", "value": "image:2"}
    container: dict[str, Any] = {"name": "agent", "image": "mirror/image:2", "env": [named]}
    spec: dict[str, Any] = {"nodeName": "n1", "containers": [container]}
    body = {"metadata": node_body()["metadata"], "spec": spec}
    assert agent_pod_view(body).image == "image:2"
    container["env"] = []
    assert agent_pod_view(body).image == "mirror/image:2"
    spec["containers"] = [{"name": "proxy", "image": "proxy:1"}, container]
    assert agent_pod_view(body).image == "mirror/image:2"


def test_views_read_what_was_written() -> None:
    stored = plan(runtime(), world()).store
    assert stored
    assert revision_view(controller_revision("rt", stored, AGENT)) == stored
    assert (
        revision_view({"metadata": {"name": "x"}, "data": {"of": "another version"}, "revision": 1}) is None
    )
    body = node_body(spec={"unschedulable": True})
    assert node_view(body).outside == "Cordoned"
    annotations = {"noderuntime.dev/retry": "a" * 300, "noderuntime.dev/rollback-to": "b"}
    meta = {**node_body()["metadata"], "generation": 1, "annotations": annotations}
    found = runtime_view({"metadata": meta, "spec": runtime().spec.dump()})
    assert (found.retry, found.rollback_to) == ("a" * 256, "b")


@pytest.mark.parametrize(
    ("managers", "foreign"),
    [
        (["kubelet"], {"runc"}),
        (["kubelet", "noderuntime-operator"], set()),
        (["kubelet", "ancient-changes"], set()),
        ([], set()),
    ],
    ids=["kubelet's", "also ours", "perhaps ours", "unknown"],
)
def test_node_view_knows_whose_handler_labels_are(managers: list[str], foreign: set[str]) -> None:
    fields = {"f:metadata": {"f:labels": {"f:handler.noderuntime.dev/runc": {}, "f:pool": {}}}}
    body = node_body()
    body["metadata"]["managedFields"] = [{"manager": name, "fieldsV1": fields} for name in managers]
    assert node_view(body).foreign_handlers == foreign


def node_body(**fields: Any) -> dict[str, Any]:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": "n1", "uid": "u", "resourceVersion": "1"}, "status": ready, **fields}


def test_revision_changes_with_image_and_spec_only() -> None:
    spec = runtime().spec
    one = revision_of(spec, "image:1")
    assert one == revision_of(spec.model_copy(update={"min_available": 1}), "image:1")
    assert one != revision_of(spec, "image:2")
    assert Revision.model_validate(one.dump()) == one


async def test_events_of_one_reason_are_counted() -> None:
    api = FakeApi()
    api.objects[EVENTS] = {}
    failed = Condition(
        type="Degraded", status="True", reason="X", message="n1", last_transition_time="2026-01-01T00:00:00Z"
    )
    async with api.serving() as kube:
        await post_events(kube, runtime(), NodeRuntimeStatus(conditions=[failed]))
        assert [body["count"] for body in api.objects[EVENTS].values()] == [1]
        again = failed.model_copy(update={"message": "n2"})
        await post_events(kube, runtime(), NodeRuntimeStatus(conditions=[again]))
    ((name, path),) = [(m, p) for m, p in api.requests if m == "PATCH"]
    assert (len(api.objects[EVENTS]), name) == (1, "PATCH")
    (body,) = api.objects[EVENTS].values()
    assert (body["count"], body["message"], EVENTS in path) == (2, "n2", True)
