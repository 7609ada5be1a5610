"""Explain why a pod has no node: its RuntimeClass, the nodes that offer its handler, the scheduler. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_noderuntime.facts import Facts
from kubectl_noderuntime.nodes import GROUPS, groups, node_report
from kubectl_noderuntime.objects import Json, by_name, condition, is_deleted, items, labels_of, name_of, part
from kubectl_noderuntime.output import clean
from noderuntime_operator.api.names import REMOVING_LABEL

Cause = tuple[str, str]
"""A constant for programs and a clause for users."""


def causes(facts: Facts) -> Iterator[Cause | None]:
    """Yield the causes that can apply to a pod without a node; the last one always does."""
    for cause in (_gated, _class_missing, _class_removed, _class_foreign, _not_offered, _unscheduled):
        if found := cause(facts):
            yield found[0], f"is pending: {found[1]}"


def _gated(facts: Facts) -> Cause | None:
    """Return that scheduling gates hold the pod."""
    gates = [clean(gate.get("name")) for gate in items(facts.pod, "spec", "schedulingGates")]
    if not gates:
        return None
    return "SchedulingGated", f"it waits until its scheduling gates are removed: {', '.join(gates)}."


def _class_missing(facts: Facts) -> Cause | None:
    """Return that the RuntimeClass does not exist, and which NodeRuntime should provide it."""
    if not facts.class_name or facts.runtime_class is None or facts.runtime_class:
        return None
    provider = next((one for one in facts.runtimes or () if facts.class_name in _classes_of(one)), None)
    if provider is None:
        advice = "No NodeRuntime has a handler for it: correct runtimeClassName, or add the handler to one."
    elif is_deleted(provider):
        advice = f"NodeRuntime {name_of(provider)}, which had a handler for it, is being deleted."
    else:
        advice = f"NodeRuntime {name_of(provider)} has a handler for it: check that the operator runs."
    return "RuntimeClassMissing", f"its RuntimeClass {facts.class_name} does not exist. {advice}"


def _class_removed(facts: Facts) -> Cause | None:
    """Return that the RuntimeClass is being removed."""
    if REMOVING_LABEL not in labels_of(facts.runtime_class):
        return None
    gone = not facts.owner or is_deleted(facts.owner)
    why = "is being deleted" if gone else f"no longer has the handler {facts.handler} for it"
    clause = (
        f"its RuntimeClass {facts.class_name} is being removed, because NodeRuntime {facts.owner_name} {why}."
    )
    return "RuntimeClassRemoved", f"{clause} Delete the pod, or choose another RuntimeClass."


def _class_foreign(facts: Facts) -> Cause | None:
    """Return that the RuntimeClass belongs to no NodeRuntime."""
    if not facts.is_foreign:
        return None
    clause = f"its RuntimeClass {facts.class_name} belongs to no NodeRuntime. {foreign_advice(facts)}"
    report = _scheduler_message(facts.pod)
    return "RuntimeClassForeign", clause + (f" The scheduler reports: {report}" if report else "")


def foreign_advice(facts: Facts) -> str:
    """Return what to do about a RuntimeClass that belongs to no NodeRuntime."""
    for runtime in facts.runtimes or ():
        for class_name, handler in _classes_of(runtime).items():
            if class_name == facts.class_name:
                return (
                    f"NodeRuntime {name_of(runtime)} needs that name and does not take the class over: delete"
                    " the class, or set runtimeClassName of the handler."
                )
            if handler == facts.handler:
                return (
                    f"Use RuntimeClass {class_name} of NodeRuntime {name_of(runtime)}, which has its handler."
                )
    return f"Its handler {clean(facts.handler)} must be configured in the nodes' own runtime."


def _not_offered(facts: Facts) -> Cause | None:
    """Return that no node offers the handler, and why not."""
    if not facts.owner_name or facts.offered is not False:
        return None
    return "NoNodeOffersHandler", f"no node offers the handler {facts.handler}. {' '.join(_obstacles(facts))}"


def _unscheduled(facts: Facts) -> Cause:
    """Return the scheduler's message, or that no scheduler has handled the pod."""
    report = _scheduler_message(facts.pod)
    if not report:
        scheduler = clean(part(facts.pod, "spec").get("schedulerName") or "default-scheduler")
        return "NotScheduled", f"the scheduler {scheduler} has not handled it yet: check that it runs."
    return "Unschedulable", f"the scheduler finds no node for it: {report}{_offers(facts)}"


def _offers(facts: Facts) -> str:
    """Return how many nodes the handler excludes, as a sentence."""
    if not facts.owner_name or not facts.instances:
        return ""
    reported = [by_name(items(one, "status", "handlers"), facts.handler) for one in facts.instances]
    ready = sum(found.get("state") == "Ready" for found in reported)
    nodes = f"{ready} of {counted(len(reported), 'node')} of NodeRuntime {facts.owner_name}"
    return f" The handler {facts.handler} is ready on {nodes}."


def _scheduler_message(pod: Json) -> str:
    """Return the scheduler's report about a pod that it cannot place, as a sentence, or an empty string."""
    found = condition(pod, "PodScheduled")
    return sentence(found["message"]) if found.get("status") == "False" and found.get("message") else ""


def _classes_of(runtime: Json) -> dict[str, str]:
    """Return the handlers of a NodeRuntime by the names of their RuntimeClasses."""
    return {
        str(handler.get("runtimeClassName") or handler.get("name")): str(handler.get("name"))
        for handler in items(runtime, "spec", "handlers")
    }


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 node``, ``2 nodes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _obstacles(facts: Facts) -> Iterator[str]:
    """Yield why no node offers the handler, as sentences."""
    name = facts.owner_name
    if facts.runtimes is None:
        return
    if not facts.owner:
        yield f"NodeRuntime {name}, the owner of its RuntimeClass, does not exist: delete the RuntimeClass."
        return
    if part(facts.owner, "status").get("desiredNodes") == 0:
        yield f"NodeRuntime {name} selects no node: compare its spec.selector with the labels of the nodes."
        return
    yield from _states(facts)
    if part(facts.owner, "spec", "update").get("paused"):
        yield f"Its rollout is paused: continue it with kubectl noderuntime resume {name}."
    for kind in ("Available", "Ready"):
        found = condition(facts.owner, kind)
        if found.get("status") == "False":
            why = sentence(f"{found.get('reason')}: {found.get('message')}")
            yield f"NodeRuntime {name} is not {kind}: {why}"
            return


def _states(facts: Facts) -> Iterator[str]:
    """Yield in which states the nodes of the NodeRuntime are, and the message of those that fail first."""
    if not facts.instances:
        return
    found = groups(map(node_report, facts.instances))
    shown = ", ".join(group.title for group in found[:GROUPS])
    yield f"The nodes of NodeRuntime {facts.owner_name}: {shown}."
    if failing := next((group for group in found if group.message), None):
        yield f"Node {failing.names[0]} reports: {sentence(failing.message)}"
    elsewhere = sum(part(one, "status", "kubelet").get("state") == "Upstream" for one in facts.instances)
    if elsewhere:
        yield f"The kubelets of {counted(elsewhere, 'node')} use another runtime."


def sentence(message: object) -> str:
    """Return a message as one line that ends with a full stop."""
    text = clean(message or "")
    return text if text.endswith((".", "!", "?")) else f"{text}."
