"""The messages of conditions."""

from __future__ import annotations

from collections.abc import Sequence

from noderuntime_operator.cluster_state import ImagePullView, RuntimeView
from noderuntime_operator.rollout import Plan
from noderuntime_operator.status.findings import Findings
from noderuntime_operator.texts import listed, one_line

CLEAN = "/opt/noderuntime/current/bin/noderuntime switch uninstall"
"""The command that removes noderuntime from the node it runs on."""


def held(plan: Plan) -> str:
    """Return which pods hold a removal or a change of kubelet.mode."""
    pods = sorted(map(str, plan.holding))
    blocked = ""
    if plan.mode_held:
        mode, nodes = plan.target.revision.kubelet.mode, listed(sorted(plan.mode_held))
        blocked = f"kubelet.mode {mode} is not applied to nodes with such pods ({nodes}): "
    text = f"{len(pods)} pods still use handlers of this NodeRuntime; delete them first: {listed(pods)}"
    return blocked + text


def unreachable(nodes: Sequence[str]) -> str:
    """Return which unreachable nodes hold a deletion."""
    return (
        f"the removal waits for {len(nodes)} unreachable nodes, until they are Ready, their Node objects"
        f" are deleted or spec.removal gives them up: {listed(nodes)}"
    )


def orphaned(runtime: RuntimeView, plan: Plan) -> str:
    """Return which nodes the deletion gave up, and how to clean them."""
    nodes = sorted(plan.orphaned)
    return (
        f"noderuntime is left on {len(nodes)} nodes that were unreachable for"
        f" {runtime.spec.removal.orphan_after_seconds} s: {listed(nodes)}. Run on them as root, when they are"
        f" back: {CLEAN}"
    )


def pulls(failed: Sequence[ImagePullView]) -> str:
    """Return which image cannot be pulled."""
    first, nodes = failed[0], sorted({pull.node for pull in failed})
    message = f"the image {first.image} of the agents cannot be pulled on {len(nodes)} nodes: {listed(nodes)}"
    return f"{message}: {first.reason}: {one_line(first.message)}"


def foreign(plan: Plan) -> str:
    """Return which required RuntimeClasses belong to another owner."""
    names = listed(sorted(plan.foreign_classes))
    return f"RuntimeClass {names} exists and does not belong to this NodeRuntime; it is not changed"


def unbound(plan: Plan) -> str:
    """Return which other RuntimeClasses use a handler of this NodeRuntime."""
    names = listed(sorted(plan.unbound_classes))
    return (
        f"RuntimeClass {names} uses a handler of this NodeRuntime, but does not select its nodes, so other"
        ' nodes run such pods in another runtime: add handler.noderuntime.dev/<handler>: "true" to'
        " scheduling.nodeSelector, or rename the handler"
    )


def elsewhere(desired: int, nodes: Sequence[str]) -> str:
    """Return which nodes serve the socket while their kubelet uses another runtime."""
    return (
        f"{desired} of {desired} nodes serve noderuntime's socket; RuntimeClasses are not offered on"
        f" {len(nodes)} nodes, because their kubelet uses another runtime: {listed(nodes)}"
    )


def given(plan: Plan, revision: str) -> str:
    """Return whether the nodes get a revision, or how many got it before its rollout was held up."""
    wave = plan.wave
    if wave.phase in ("Paused", "Stopped"):
        state = f"the rollout of {revision} is {wave.phase.lower()}"
        return f"{state} after {wave.updated} of {wave.nodes} nodes were given it"
    return f"the nodes get {revision}"


def failures(found: Findings) -> str:
    """Return which nodes fail, and why."""
    return listed([f"{name}: {message}" for name, _, message in found.failing], "; ")


def outside(plan: Plan) -> str:
    """Return which nodes a rollout leaves out."""
    return listed([f"{name} ({reason})" for name, reason in sorted(plan.outside.items())])
