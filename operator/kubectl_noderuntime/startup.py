"""Explain why a pod does not run on the node that it was scheduled to. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_noderuntime.facts import Facts
from kubectl_noderuntime.objects import Json, condition, items, part
from kubectl_noderuntime.output import clean
from kubectl_noderuntime.placement import Cause, counted, foreign_advice, sentence

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_STARTING = {"ContainerCreating", "PodInitializing"}
_NO_HANDLER = "no runtime handler"
_BRIEF = 500
"""Characters of a container's termination message, which its program can write."""


def causes(facts: Facts) -> Iterator[Cause | None]:
    """Yield the causes that can apply to a pod with a node; the last one always does."""
    yield _running(facts)
    yield _node_down(facts)
    for container in facts.containers:
        yield _pull(facts, container)
        yield _crash(facts, container)
        yield _container(facts, container)
    yield _sandbox(facts)
    yield _warned(facts)
    yield _not_ready(facts)
    yield _starting(facts)


def _running(facts: Facts) -> Cause | None:
    """Return that the pod runs and is ready."""
    if condition(facts.pod, "Ready").get("status") != "True":
        return None
    number = counted(sum(1 for _ in items(facts.pod, "status", "containerStatuses")), "container")
    return "Running", f"runs on {_where(facts)}, and is ready ({number})."


def _where(facts: Facts) -> str:
    """Return node, handler and NodeRuntime of a pod, as a part of a sentence."""
    if not facts.class_name:
        return facts.node_name
    version = clean(facts.node_handler.get("version") or "")
    owner = f" of NodeRuntime {facts.owner_name}" if facts.owner_name else ""
    return f"{facts.node_name} in handler {clean(facts.handler)}{f' ({version})' if version else ''}{owner}"


def _node_down(facts: Facts) -> Cause | None:
    """Return that the pod's node is not Ready, or does not exist."""
    if facts.node is None:
        return None
    if not facts.node:
        return "NodeMissing", f"is bound to node {facts.node_name}, which does not exist: delete the pod."
    ready = condition(facts.node, "Ready")
    if ready.get("status") == "True":
        return None
    why = sentence(f"{ready.get('reason')}: {ready.get('message')}") if ready else "no kubelet has reported."
    return "NodeNotReady", f"does not run, because its node {facts.node_name} is not Ready: {why}"


def _waiting(container: Json) -> tuple[str, str]:
    """Return the reason and message of a container that waits, else empty strings."""
    state = part(container, "state", "waiting")
    return clean(state.get("reason") or ""), clean(state.get("message") or "")


def _pull(facts: Facts, container: Json) -> Cause | None:
    """Return that the image of a container cannot be pulled."""
    reason, message = _waiting(container)
    if reason not in _PULL:
        return None
    event = facts.warning("Failed", containing="Failed to pull image")
    image, why = clean(container.get("image")), sentence(event or f"{reason}: {message}")
    return "ImagePull", (
        f"does not run: the image {image} of container {_name(container)} cannot be pulled on"
        f" {facts.node_name}: {why} Correct the image's name, or the pull secret."
    )


def _crash(facts: Facts, container: Json) -> Cause | None:
    """Return that a container has ended with an error, and whether the kubelet waits to start it again."""
    waits = _waiting(container)[0] == "CrashLoopBackOff"
    ended = part(container, "lastState" if waits else "state", "terminated")
    if not waits and not ended.get("exitCode"):
        return None
    meta, name = part(facts.pod, "metadata"), _name(container)
    why = ": ".join(clean(ended[key]) for key in ("reason", "message") if ended.get(key))
    restarts = counted(int(container.get("restartCount") or 0), "restart")
    log = f"kubectl logs --namespace {meta.get('namespace')} {meta.get('name')} --container {name}"
    return "CrashLoop" if waits else "ContainerEnded", (
        f"is not ready on {_where(facts)}: its container {name} ended with exit status"
        f" {ended.get('exitCode', 'unknown')} ({why[:_BRIEF]}), after {restarts}. Read its log:"
        f" {log}{' --previous' if waits else ''}"
    )


def _container(facts: Facts, container: Json) -> Cause | None:
    """Return that a container cannot be created or started."""
    reason, message = _waiting(container)
    if not reason or reason in _STARTING:
        return None
    return "ContainerFailed", (
        f"does not run: its container {_name(container)} cannot start on {_where(facts)}:"
        f" {sentence(f'{reason}: {message}' if message else reason)}"
    )


def _sandbox(facts: Facts) -> Cause | None:
    """Return that the pod's sandbox cannot be created: the kubelet's event and the agent's report."""
    event = facts.warning("FailedCreatePodSandBox")
    if not event or _has_sandbox(facts):
        return None
    clause = f"does not run: its sandbox cannot be created on {_where(facts)}: {sentence(event)}"
    if facts.is_foreign and _NO_HANDLER in event:
        advice = f" RuntimeClass {facts.class_name} belongs to no NodeRuntime. {foreign_advice(facts)}"
        return "RuntimeClassForeign", clause + advice
    if _NO_HANDLER in event:
        advice = (
            f" Its nodeName bypasses the scheduler, which selects nodes with the handler {facts.handler}."
        )
        return "HandlerMissing", clause + advice
    return "SandboxFailed", clause + _broken(facts)


def _broken(facts: Facts) -> str:
    """Return the agent's report about a handler that does not work on the node, as a sentence."""
    found = facts.node_handler
    if found.get("state") != "Broken":
        return ""
    why = sentence(f"{found.get('reason')}: {found.get('message')}")
    return f" The node's agent reports that the handler is broken: {why}"


def _warned(facts: Facts) -> Cause | None:
    """Return the newest warning about a pod without containers, for example about its volumes."""
    event = facts.warning(but="FailedScheduling")
    if not event or _has_sandbox(facts):
        return None
    return "Warned", f"does not run yet on {facts.node_name}; its newest event is {sentence(event)}"


def _not_ready(facts: Facts) -> Cause | None:
    """Return that containers run and are not ready."""
    if part(facts.pod, "status").get("phase") != "Running":
        return None
    names = ", ".join(_name(one) for one in facts.containers if not one.get("ready")) or "none"
    event = facts.warning("Unhealthy")
    return "NotReady", (
        f"runs on {_where(facts)}, but its containers {names} are not ready."
        + (f" The kubelet reports {sentence(event)}" if event else "")
    )


def _starting(facts: Facts) -> Cause:
    """Return that the pod is starting."""
    return "Starting", f"is starting on {_where(facts)}.{_broken(facts)}"


def _has_sandbox(facts: Facts) -> bool:
    """Return whether the pod's sandbox exists: the kubelet reports it, or a container has been started."""
    reported = condition(facts.pod, "PodReadyToStartContainers").get("status") == "True"
    return reported or any(part(one, "state").keys() & {"running", "terminated"} for one in facts.containers)


def _name(container: Json) -> str:
    return clean(container.get("name"))
