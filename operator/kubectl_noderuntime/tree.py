"""Draw NodeRuntimes as trees, which are small for any number of nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group as Renderables
from rich.text import Text
from rich.tree import Tree

from kubectl_noderuntime.nodes import GROUPS, NAMED, groups, listed
from kubectl_noderuntime.objects import items, part
from kubectl_noderuntime.output import clean, styled
from kubectl_noderuntime.report import RuntimeReport

_GOOD = {
    "Available": "True",
    "Ready": "True",
    "Degraded": "False",
    "RolledBack": "False",
}
_PHASE_STYLES = {"Ready": "green", "Failed": "red", "Degraded": "red", "Removed": "dim"}


def forest(reports: Iterable[RuntimeReport], *, every: bool = False) -> Renderables:
    """Return a tree for each NodeRuntime; with every, all nodes are named."""
    return Renderables(*(tree(report, every=every) for report in reports))


def tree(report: RuntimeReport, *, every: bool = False) -> Tree:
    """Return the tree of one NodeRuntime."""
    notes = [note for note, holds in (("being deleted", report.deleting), ("paused", report.paused)) if holds]
    made = Tree(styled("NodeRuntime ", (report.name, "bold"), ": " + ", ".join([report.summary, *notes])))
    branches = (
        (styled("conditions") if report.conditions else None, _conditions(report)),
        (_rollout_title(report), _rollout(report)),
        (_failing_title(report), _failing(report, every=every)),
        (styled("handlers"), _handlers(report)),
        (styled(f"{len(report.nodes)} nodes, as their agents report"), _nodes(report, every=every)),
    )
    for title, lines in branches:
        if title:
            branch = made.add(title)
            for line in lines:
                branch.add(line)
    return made


def _conditions(report: RuntimeReport) -> Iterator[Text]:
    width = max((len(clean(one.get("type"))) for one in report.conditions), default=0)
    for one in report.conditions:
        kind, status = clean(one.get("type")), clean(one.get("status"))
        style = "" if kind not in _GOOD else "green" if status == _GOOD[kind] else "red"
        message = f" {clean(one.get('reason'))}: {clean(one.get('message'))}"
        yield styled(f"{kind:{width}} ", (f"{status:7}", style), message)


def _rollout_title(report: RuntimeReport) -> Text | None:
    """Return the phase and the counts of the rollout."""
    wave = part(report.status, "wave")
    if not wave:
        return None
    counts = f"{wave.get('updated', 0)} of {wave.get('nodes', 0)} nodes updated, {wave.get('ready', 0)} ready"
    failed = f", {wave['failed']} failed" if wave.get("failed") else ""
    return styled(f"rollout: {clean(wave.get('phase'))}, {counts}{failed}")


def _rollout(report: RuntimeReport) -> Iterator[Text]:
    """Yield the revisions, what the rollout waits for, and the nodes that it leaves out."""
    status, wave = report.status, part(report.status, "wave")
    target, current = status.get("updateRevision"), status.get("currentRevision")
    if target:
        before = f", from {clean(current)}" if current and current != target else ""
        yield styled(f"revision {clean(target)}{before}")
    if report.pinned:
        yield styled(f"rolled back by hand to revision {report.pinned}")
    if failure := part(status, "failedRevision"):
        yield styled(f"revision {clean(failure.get('revision'))} failed: {clean(failure.get('message'))}")
    if wave.get("waitingFor"):
        yield styled(f"waits for {clean(wave['waitingFor'])}")
    outside = [f"{clean(one['name'])} ({clean(one['reason'])})" for one in items(status, "outsideNodes")]
    if outside:
        number = int(wave.get("outside") or len(outside))
        yield styled(f"{number} left out: {listed(outside, of=number)}")


def _failing_title(report: RuntimeReport) -> Text | None:
    """Return how many nodes fail for which reason, as the operator counts them."""
    if not any(items(report.status, "failingNodes")):
        return None
    counts = (f"{one.get('nodes')} {clean(one.get('reason'))}" for one in items(report.status, "reasons"))
    return styled(("failing: ", "red"), ", ".join(counts))


def _failing(report: RuntimeReport, *, every: bool) -> Iterator[Text]:
    failing = list(items(report.status, "failingNodes"))
    for node in failing if every else failing[:NAMED]:
        yield styled(": ".join(clean(node.get(key)) for key in ("name", "reason", "message")))


def _handlers(report: RuntimeReport) -> Iterator[Text]:
    for handler in report.handlers:
        counts = sorted(handler.states.items(), reverse=True)  # Unknown, Ready, Broken
        states = ", ".join(f"{state} on {number}" for state, number in counts) or "no report"
        text = f" ({handler.type}, RuntimeClass {handler.runtime_class}): {states}"
        yield styled((handler.name, "bold"), text)


def _nodes(report: RuntimeReport, *, every: bool) -> Iterator[Text]:
    """Yield the groups of nodes, at most GROUPS unless every one is wanted."""
    found = groups(report.nodes)
    shown = found if every else found[:GROUPS]
    for group in shown:
        style = _PHASE_STYLES.get(group.phase, "yellow")
        yield styled((group.title, style), f": {listed(group.names, every=every)}")
    if rest := found[len(shown) :]:
        yield styled(f"{sum(len(one.names) for one in rest)} in {len(rest)} more groups (--all shows them)")
