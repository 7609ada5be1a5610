"""Find what changed between two reports, as lines for logs and pipes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kubectl_noderuntime.objects import part
from kubectl_noderuntime.output import clean
from kubectl_noderuntime.report import RuntimeReport

Key = tuple[str, str]
"""An object, such as ``node/a``, and which of its values."""


@dataclass
class Changes:
    """Remembers the last values, and returns those that are new."""

    _known: dict[Key, str] = field(default_factory=dict)

    def since_last(
        self, reports: Iterable[RuntimeReport], problems: Iterable[str] = ()
    ) -> list[tuple[str, str, str]]:
        """Return object, value's name and new value of everything that changed.

        The first call returns only what concerns whole NodeRuntimes: there can be thousands of nodes.
        """
        first = not self._known
        known = {**dict(_values(reports)), ("apiserver", "connection"): "; ".join(problems) or "up"}
        changed = [(*key, value) for key, value in known.items() if self._known.get(key) != value]
        gone = [(*key, "deleted") for key in self._known.keys() - known.keys() if key[1] == "phase"]
        self._known = known
        return [one for one in changed + sorted(gone) if not (first and one[0].startswith("node/"))]


def _values(reports: Iterable[RuntimeReport]) -> Iterator[tuple[Key, str]]:
    """Yield the values whose change is reported."""
    for report in reports:
        name = f"noderuntime/{report.name}"
        yield (name, "nodes"), report.summary + (", paused" if report.paused else "")
        wave = part(report.status, "wave")
        if wave:
            updated, nodes, failed = (wave.get(key, 0) for key in ("updated", "nodes", "failed"))
            counts = f"{updated} of {nodes} updated, {failed} failed"
            yield (name, "rollout"), f"{clean(wave.get('phase'))}, {counts}"
        for one in report.conditions:
            value = f"{clean(one.get('status'))} {clean(one.get('reason'))}: {clean(one.get('message'))}"
            yield (name, clean(one.get("type"))), value
        for node in report.nodes:
            reason = f" ({node.reason})" if node.reason else ""
            message = f": {node.message}" if node.message else ""
            yield (f"node/{node.name}", "phase"), f"{node.phase}{reason}{message}"
