"""Build the views of the API server's objects. Pure.

Views of a fleet are mostly equal, so they share their parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from sys import intern
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from noderuntime_operator.api.base import Condition, Model
from noderuntime_operator.api.instance import InstanceSpec, InstanceStatus
from noderuntime_operator.api.names import (
    BEFORE_ANNOTATION,
    FIELD_MANAGER,
    HANDLER_LABEL_PREFIX,
    OWNER_LABEL,
    REMOVING_LABEL,
    RESTORED_ANNOTATION,
    RETRY_ANNOTATION,
    ROLLBACK_ANNOTATION,
    SERVICE_ACCOUNT_LABEL,
    TAKEN_ANNOTATION,
)
from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.api.revision import Revision
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.cluster_state import (
    AgentPodView,
    DaemonSetView,
    ImagePullView,
    InstanceView,
    NodeView,
    PodView,
    RevisionView,
    RuntimeClassView,
    RuntimeView,
)

Body = Mapping[str, Any]
Validated = TypeVar("Validated", bound=Model)

_PULL_FAILURES = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_FINISHED = frozenset({"Succeeded", "Failed"})
_RETRY_LIMIT = 256
"""FailedRevision.retry holds no more of the annotation."""
_PERHAPS_OURS = (FIELD_MANAGER, "ancient-changes")


def runtime_view(body: Body) -> RuntimeView:
    """Return the view of a NodeRuntime."""
    meta = body["metadata"]
    annotations = meta.get("annotations") or {}
    return RuntimeView(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers", ())),
        spec=NodeRuntimeSpec.model_validate(dict(body["spec"])),
        status=NodeRuntimeStatus.model_validate(dict(body.get("status") or {})),
        retry=annotations.get(RETRY_ANNOTATION, "")[:_RETRY_LIMIT],
        rollback_to=annotations.get(ROLLBACK_ANNOTATION, ""),
    )


def revision_view(body: Body) -> RevisionView | None:
    """Return the view of a ControllerRevision, or None if this version cannot read it."""
    try:
        revision = Revision.model_validate(body["data"])
    except ValidationError:
        return None
    return RevisionView(body["metadata"]["name"], revision, body["revision"])


def agent_pod_view(body: Body) -> AgentPodView:
    """Return the view of an agent's pod."""
    meta, spec = body["metadata"], body["spec"]
    labels = meta.get("labels") or {}
    return AgentPodView(
        name=meta["name"],
        uid=meta["uid"],
        node=spec.get("nodeName", ""),
        image=_agent_image(spec["containers"]),
        service_account=labels.get(SERVICE_ACCOUNT_LABEL, ""),
        runtime=labels.get(OWNER_LABEL, ""),
        pull=image_pull_view(body),
        resource_version=meta["resourceVersion"],
    )


def _agent_image(containers: Sequence[Body]) -> str:
    """Return the image that an agent was made for: a webhook can have rewritten it, or added containers."""
    container = next((found for found in containers if found.get("name") == "agent"), containers[0])
    env = {variable["name"]: variable.get("value") for variable in container.get("env") or ()}
    return str(env.get("NODERUNTIME_IMAGE") or container["image"])


def node_view(body: Body) -> NodeView:
    """Return the view of a Node."""
    meta = body["metadata"]
    conditions = (body.get("status") or {}).get("conditions") or ()
    ready: dict[str, str] = next((c for c in conditions if c["type"] == "Ready"), {})
    return NodeView(
        name=meta["name"],
        uid=meta["uid"],
        labels={intern(key): intern(value) for key, value in (meta.get("labels") or {}).items()},
        ready=ready.get("status") == "True",
        since=_time(ready.get("lastTransitionTime")),
        resource_version=meta["resourceVersion"],
        unschedulable=bool((body.get("spec") or {}).get("unschedulable")),
        foreign_handlers=_foreign_handlers(meta.get("managedFields") or ()),
    )


def _foreign_handlers(managed: Iterable[Body]) -> frozenset[str]:
    """Return the handlers whose labels belong to other clients only.

    The API server forgets the name of an old client if there are many; that one is perhaps the operator.
    """
    prefix = f"f:{HANDLER_LABEL_PREFIX}"
    ours: set[str] = set()
    others: set[str] = set()
    for entry in managed:
        labels = (((entry.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:labels") or {}).keys()
        found = others if entry.get("manager") not in _PERHAPS_OURS else ours
        found |= {label.removeprefix(prefix) for label in labels if label.startswith(prefix)}
    return frozenset(others - ours)


def instance_view(body: Body) -> InstanceView:
    """Return the view of a NodeRuntimeInstance, without upstreamSocket: users own that field."""
    meta, status = body["metadata"], dict(body.get("status") or {})
    annotations = meta.get("annotations") or {}
    heartbeat = status.pop("lastHeartbeatTime", None)
    created = _time(meta["creationTimestamp"])
    assert created is not None, "the API server sets it"  # noqa: S101 - for the type checker
    return InstanceView(
        name=meta["name"],
        generation=meta["generation"],
        created=created,
        spec=_instance_spec(body["spec"]),
        status=_instance_status(status),
        restored=RESTORED_ANNOTATION in annotations,
        node_uid=next((o["uid"] for o in meta.get("ownerReferences") or () if o["kind"] == "Node"), ""),
        taken=_annotated_time(annotations.get(TAKEN_ANNOTATION)),
        failed_before=BEFORE_ANNOTATION in annotations,
        retry=annotations.get(RETRY_ANNOTATION, ""),
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        heartbeat=_time(heartbeat),
    )


def _instance_spec(raw: Body) -> InstanceSpec:
    """Return an instance's spec, which shares all but the node's name with equal specs."""
    own = {"nodeName", "upstreamSocket"}
    shared = _validated(InstanceSpec, {"nodeName": "any"} | {k: v for k, v in raw.items() if k not in own})
    return shared.model_copy(update={"node_name": raw["nodeName"]})


def _instance_status(raw: Body) -> InstanceStatus:
    """Return an agent's report, which shares its parts with equal reports."""
    handlers = [{k: v for k, v in h.items() if k != "lastProbeTime"} for h in raw.get("handlers") or ()]
    rest = {key: value for key, value in raw.items() if key != "conditions"}
    shared = _validated(InstanceStatus, rest | ({"handlers": handlers} if "handlers" in raw else {}))
    if "conditions" not in raw:
        return shared
    conditions = [_validated(Condition, condition) for condition in raw["conditions"]]
    return shared.model_copy(update={"conditions": conditions})


def _validated(model: type[Validated], raw: Body) -> Validated:
    """Return the model of some JSON; equal JSON gives the same object."""
    return cast(Validated, _parse(model, json.dumps(raw, sort_keys=True)))


@lru_cache(maxsize=4096)
def _parse(model: type[Model], text: str) -> Model:
    return model.model_validate_json(text)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _annotated_time(text: str | None) -> datetime | None:
    """Return the time in an annotation, which the API server does not check; None if it has another form."""
    try:
        found = _time(text)
    except ValueError:
        return None
    return found if found and found.tzinfo else None


def runtime_class_view(body: Body) -> RuntimeClassView:
    """Return the view of a RuntimeClass."""
    meta = body["metadata"]
    scheduling = body.get("scheduling") or {}
    labels = meta.get("labels") or {}
    return RuntimeClassView(
        name=meta["name"],
        handler=body["handler"],
        owner=labels.get(OWNER_LABEL),
        uid=meta["uid"],
        node_selector=frozenset(scheduling.get("nodeSelector") or ()),
        removing=REMOVING_LABEL in labels,
        resource_version=meta["resourceVersion"],
    )


def daemon_set_view(body: Body) -> DaemonSetView:
    """Return the view of a DaemonSet of agents."""
    meta, status = body["metadata"], body.get("status") or {}
    wanted, updated = status.get("desiredNumberScheduled") or 0, status.get("updatedNumberScheduled") or 0
    return DaemonSetView(
        name=meta["name"],
        owner=(meta.get("labels") or {}).get(OWNER_LABEL, ""),
        unavailable=status.get("numberUnavailable") or 0,
        outdated=max(0, wanted - updated),
        uid=meta["uid"],
        generation=meta["generation"],
        resource_version=meta["resourceVersion"],
    )


def image_pull_view(body: Body) -> ImagePullView | None:
    """Return the failed pull of an agent's pod, or None."""
    statuses = (body.get("status") or {}).get("containerStatuses") or ()
    for found in statuses:
        waiting = (found.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _PULL_FAILURES:
            return ImagePullView(
                node=body["spec"].get("nodeName", ""),
                image=found["image"],
                reason=waiting["reason"],
                message=waiting.get("message", ""),
            )
    return None


def pod_view(body: Body) -> PodView | None:
    """Return the view of an unfinished pod that has a RuntimeClass and a node, else None."""
    spec, meta = body["spec"], body["metadata"]
    if not spec.get("runtimeClassName") or not spec.get("nodeName"):
        return None
    if (body.get("status") or {}).get("phase") in _FINISHED:
        return None
    owners = (f"{o['kind']} {o['name']}" for o in meta.get("ownerReferences") or () if o.get("controller"))
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        node=spec["nodeName"],
        runtime_class=spec["runtimeClassName"],
        owner=next(owners, ""),
        resource_version=meta["resourceVersion"],
    )
