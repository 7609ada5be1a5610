"""Divides the usage of a sandbox among containers inside its process (gVisor), from the sandbox's cgroup.

The containers cannot be told apart from outside. Consumers of the numbers (``kubectl top``,
autoscalers) ignore a pod if one of its containers has none, so each gets what gVisor itself reports
for memory: an equal part, with a correct sum. CPU time is divided as it is used, so that a container's
counter never decreases and a new one starts at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from noderuntime.lifecycle.stats.cgroup_sample import Sample

_MAX_AGE = 600_000_000_000
"""Nanoseconds without a request after which a sandbox is dropped."""


@dataclass(slots=True)
class _Account:
    total: int = 0
    sampled_at: int = 0
    parts: dict[str, int] = field(default_factory=dict)


class Shares:
    """The CPU time that was attributed to each container, by sandbox."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def divide(self, sandbox_id: str, sample: Sample, running: Sequence[str]) -> Mapping[str, Sample]:
        """Return the parts of a sandbox's sample for its running containers, by their IDs."""
        if not running:
            return {}
        self._drop_before(sample.timestamp - _MAX_AGE)
        cpu = self._cpu(sandbox_id, sample, running)
        alone = len(running) == 1
        return {one: _part(sample, len(running), cpu.get(one), alone=alone) for one in running}

    def _cpu(self, sandbox_id: str, sample: Sample, running: Sequence[str]) -> Mapping[str, int]:
        if sample.cpu is None:
            return {}
        account = self._accounts.setdefault(sandbox_id, _Account())
        used = max(sample.cpu - account.total, 0)
        account.total, account.sampled_at = sample.cpu, sample.timestamp
        account.parts = {one: account.parts.get(one, 0) + used // len(running) for one in running}
        return account.parts

    def _drop_before(self, timestamp: int) -> None:
        self._accounts = {one: kept for one, kept in self._accounts.items() if kept.sampled_at >= timestamp}


def _part(sample: Sample, count: int, cpu: int | None, *, alone: bool) -> Sample:
    def divided(number: int | None) -> int | None:
        return None if number is None else number // count

    return replace(
        sample,
        cpu=cpu,
        memory=divided(sample.memory),
        inactive_file=sample.inactive_file // count,
        rss=divided(sample.rss),
        swap=divided(sample.swap),
        page_faults=sample.page_faults if alone else None,
        major_page_faults=sample.major_page_faults if alone else None,
        memory_limit=sample.memory_limit if alone else None,
        swap_limit=sample.swap_limit if alone else None,
        pressure=sample.pressure if alone else {},
    )
