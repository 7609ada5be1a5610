"""Summarize what the agents report about their nodes: thousands of nodes become a few groups. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubectl_noderuntime.objects import Json, by_name, condition, items, name_of, part
from kubectl_noderuntime.output import clean

NAMED = 5
"""A group shows at most this many names of nodes."""
GROUPS = 10
"""At most this many groups are shown; the rest is counted."""
_SETTLED = ("Ready", "Removed")


@dataclass(frozen=True)
class NodeReport:
    """The report of one node's agent, reduced to what is shown."""

    name: str
    phase: str
    """Pending: the agent has not reported yet. Updating: its last report is about an older spec."""
    version: str = ""
    reason: str = ""
    message: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do on the node."""
        return self.phase in _SETTLED


@dataclass(frozen=True)
class Group:
    """Nodes with the same phase, reason and version; the message is that of the first."""

    phase: str
    reason: str
    version: str
    names: Sequence[str]
    message: str

    @property
    def title(self) -> str:
        """The group as one line: ``2 Failed (SwitchReverted) on 0.1.0``."""
        reason = f" ({self.reason})" if self.reason else ""
        version = f" on {self.version}" if self.version else ""
        return f"{len(self.names)} {self.phase}{reason}{version}"


def node_report(instance: Json) -> NodeReport:
    """Return the report of one NodeRuntimeInstance."""
    status = part(instance, "status")
    phase = str(status.get("phase") or "Pending")
    outdated = status.get("observedGeneration") != part(instance, "metadata").get("generation")
    reason, message = _problem(instance, phase)
    return NodeReport(
        name=name_of(instance),
        phase="Updating" if outdated and phase in _SETTLED else clean(phase),
        version=clean(status.get("runtimeVersion") or ""),
        reason=clean(reason),
        message=clean(message),
    )


def _problem(instance: Json, phase: str) -> tuple[str, str]:
    """Return why a node is not Ready, as reason and message: its first broken handler's, or its own."""
    if phase in (*_SETTLED, "Pending"):
        return "", ""
    broken = by_name(items(instance, "status", "handlers"), "Broken", key="state")
    if broken and phase == "Degraded":
        message = f"handler {broken.get('name')}: {broken.get('message')}"
        return broken.get("reason") or "HandlerBroken", message
    ready = condition(instance, "Ready")
    if ready.get("status") == "True":
        return "", ""
    return ready.get("reason") or "", ready.get("message") or ""


def groups(reports: Iterable[NodeReport]) -> list[Group]:
    """Return the nodes in groups: those that need attention first, the largest first."""
    found: dict[tuple[str, str, str], list[NodeReport]] = {}
    for report in reports:
        found.setdefault((report.phase, report.reason, report.version), []).append(report)
    made = [
        Group(*key, names=sorted(one.name for one in members), message=min(members, key=_name).message)
        for key, members in found.items()
    ]
    return sorted(made, key=lambda group: (group.phase in _SETTLED, -len(group.names), group.title))


def _name(report: NodeReport) -> str:
    return report.name


def listed(names: Sequence[str], *, every: bool = False, of: int = 0) -> str:
    """Return names separated by commas, at most NAMED or every one, and the number of the others.

    of is the total, if it is more than the names that are known.
    """
    shown = names if every else names[:NAMED]
    more = max(of, len(names)) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
