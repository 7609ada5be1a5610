"""Which revision the nodes get: that of the spec, the last good one, or the one that a user requests.

    spec + image ──► desired ──► target ──► all waves ended: current
                        │ too many failures                    │
                        └──► failed revision ──► target = current, until desired or retry changes

The failed revision is written into the status before a node goes back, so that an operator which restarts
in between does not begin again.
"""

from __future__ import annotations

from dataclasses import dataclass

from noderuntime_operator.api.status import FailedRevision
from noderuntime_operator.cluster_state import ClusterState, RevisionView, RuntimeView
from noderuntime_operator.desired import revision_name, revision_of

HISTORY = 5


@dataclass(frozen=True)
class Choice:
    """The revision that nodes get now, and why it is not the desired one."""

    target: RevisionView
    desired: str
    failed: FailedRevision | None = None
    problem: str = ""


def choose(runtime: RuntimeView, cluster: ClusterState) -> Choice:
    """Return the target of a NodeRuntime's rollout."""
    revision = revision_of(runtime.spec, cluster.agent_image)
    name = revision_name(runtime.name, revision)
    known, status = cluster.revisions, runtime.status
    desired = RevisionView(name, revision, known[name].number if name in known else 0)
    failed = status.failed_revision
    if failed and (failed.revision, failed.retry) != (name, runtime.retry):
        failed = None
    requested = runtime.rollback_to
    if requested and requested != name:
        if requested in known:
            return Choice(known[requested], name, failed)
        names = ", ".join(sorted(known)) or "none"
        problem = f"revision {requested} of the annotation rollback-to is unknown (known: {names})"
        return Choice(known.get(status.update_revision or "", desired), name, failed, problem)
    good = known.get(status.current_revision or "")
    if failed and good and runtime.spec.update.rollback == "Automatic":
        return Choice(good, name, failed)
    return Choice(desired, name, failed)


def to_store(choice: Choice, cluster: ClusterState) -> RevisionView | None:
    """Return the target with the next number of the history, if it is not stored yet."""
    if choice.target.name in cluster.revisions:
        return None
    last = max((known.number for known in cluster.revisions.values()), default=0)
    return RevisionView(choice.target.name, choice.target.revision, last + 1)


def to_forget(runtime: RuntimeView, choice: Choice, cluster: ClusterState) -> tuple[str, ...]:
    """Return the oldest stored revisions beyond the history's length, except those in use."""
    status = runtime.status
    used = {choice.target.name, choice.desired, status.current_revision, status.update_revision}
    used.add(runtime.rollback_to)
    oldest = sorted(cluster.revisions.values(), key=lambda known: known.number)
    free = [known.name for known in oldest if known.name not in used]
    return tuple(free[: max(0, len(oldest) - HISTORY)])
