"""Explain why a pod does not run: the first cause that applies, in the order of a pod's life. Pure.

finished, being deleted ─► RuntimeClass ─► nodes that offer the handler ─► scheduler
    ─► node ─► image ─► container ─► sandbox ─► readiness
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_noderuntime import placement, startup
from kubectl_noderuntime.facts import Facts
from kubectl_noderuntime.objects import is_deleted, part
from kubectl_noderuntime.output import clean
from kubectl_noderuntime.placement import Cause

RUNNING = "Running"


@dataclass(frozen=True)
class Diagnosis:
    """Why a pod does not run: a constant for programs, a paragraph for users."""

    cause: str
    text: str


def diagnose(facts: Facts) -> Diagnosis:
    """Return why the pod does not run, or that it runs."""
    cause, clause = next(found for found in _causes(facts) if found)
    return Diagnosis(cause, " ".join([f"Pod {facts.name} {clause}", *_notes(facts)]))


def _causes(facts: Facts) -> Iterator[Cause | None]:
    """Yield the causes that can apply; the last one always does."""
    yield _finished(facts)
    yield _deleted(facts)
    if facts.node_name:
        yield from startup.causes(facts)
    else:
        yield from placement.causes(facts)


def _finished(facts: Facts) -> Cause | None:
    """Return that the pod has ended."""
    status = part(facts.pod, "status")
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    why = ": ".join(clean(status[key]) for key in ("reason", "message") if status.get(key))
    ended = "has ended successfully" if status["phase"] == "Succeeded" else "has failed and is not restarted"
    return "Finished", f"{ended}: {placement.sentence(why)}" if why else f"{ended}."


def _deleted(facts: Facts) -> Cause | None:
    """Return that the pod is being deleted."""
    if not is_deleted(facts.pod):
        return None
    where = f" until its containers on {facts.node_name} have stopped" if facts.node_name else ""
    finalizers = part(facts.pod, "metadata").get("finalizers")
    held = f", and until its finalizers are removed: {clean(', '.join(finalizers))}" if finalizers else ""
    return "BeingDeleted", f"is being deleted; it exists{where}{held}."


def _notes(facts: Facts) -> Iterator[str]:
    """Yield what limits the explanation."""
    if not facts.class_name:
        yield "It has no RuntimeClass, so it uses the default runtime of its node."
    if facts.hidden:
        yield f"Your permissions do not allow reading {', '.join(facts.hidden)}."
