"""The checks of the scale test: each must see the fault that it is there for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from scale.disturbances import busiest
from scale.figures import Figure
from scale.requests import RequestMeter
from scale.stages import shows
from scale.watching import LabelGuard, Truth

Event = tuple[str, dict[str, Any]]


class FakeApi:
    """An API whose watches yield what is put into the queue."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def follow(self, path: str, *, metadata_only: bool = False) -> AsyncIterator[Event]:
        while True:
            yield await self.events.get()

    async def send(self, *events: Event) -> None:
        for event in events:
            self.events.put_nowait(event)
        while not self.events.empty():
            await asyncio.sleep(0)
        await asyncio.sleep(0)


def node(name: str, *handlers: str) -> dict[str, Any]:
    labels = {f"handler.noderuntime.dev/{handler}": "true" for handler in handlers}
    return {"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **labels}}}


def instance(name: str, phase: str, generation: int = 1, observed: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "generation": generation},
        "status": {"phase": phase, "observedGeneration": observed},
    }


async def test_label_guard_records_a_lost_label() -> None:
    api = FakeApi()
    guard = LabelGuard(api)  # type: ignore[arg-type]
    await api.send(("LIST", {"items": [node("a"), node("b", "runc", "gvisor")]}))
    assert guard.complete(2) == 1
    await api.send(("MODIFIED", node("a", "runc")), ("MODIFIED", node("a", "runc", "gvisor")))
    assert (guard.complete(2), guard.lost) == (2, [])
    await api.send(("MODIFIED", node("a", "gvisor")), ("MODIFIED", node("a", "runc", "gvisor")))
    assert guard.lost == ["a: handler.noderuntime.dev/runc"]
    await guard.stop()


async def test_label_guard_sees_a_label_lost_in_a_gap() -> None:
    api = FakeApi()
    guard = LabelGuard(api)  # type: ignore[arg-type]
    await api.send(
        ("LIST", {"items": [node("a", "runc"), node("b", "runc")]}), ("DELETED", node("b", "runc"))
    )
    await api.send(("LIST", {"items": [node("a")]}))
    assert guard.lost == ["a: handler.noderuntime.dev/runc"]
    await guard.stop()


async def test_label_guard_that_failed_fails_the_check() -> None:
    api = FakeApi()
    guard = LabelGuard(api)  # type: ignore[arg-type]
    await api.send(("MODIFIED", {}))
    with pytest.raises(KeyError):
        guard.complete(2)


async def test_truth_counts_failures_and_how_old_a_number_is() -> None:
    api = FakeApi()
    api.events.put_nowait(("LIST", {"items": [instance("a", "Ready"), instance("b", "Ready")]}))
    async with Truth(api) as truth:  # type: ignore[arg-type]
        assert (truth.lag(2), truth.failures) == (0, 0)
        await api.send(("MODIFIED", instance("a", "Degraded")))
        assert truth.failures == 1
        await asyncio.sleep(0.05)
        assert truth.lag(1) == 0
        assert 0.05 <= truth.lag(2) < 5
        assert truth.lag(17) > 1e6


async def test_truth_counts_instances_that_change_at_once() -> None:
    api = FakeApi()
    api.events.put_nowait(("LIST", {"items": []}))
    async with Truth(api) as truth:  # type: ignore[arg-type]
        await api.send(("MODIFIED", instance("a", "Ready", 2, 1)), ("MODIFIED", instance("b", "Ready", 2, 1)))
        await api.send(("MODIFIED", instance("a", "Ready", 2, 2)), ("MODIFIED", instance("c", "Ready", 2, 1)))
        assert truth.most_changing == 2


def test_busiest_second_is_found_at_any_offset() -> None:
    assert busiest(()) == 0
    assert busiest((0.0, 0.9, 1.8, 2.6, 2.7, 3.5)) == 3


def test_request_meter_counts_what_came_after_it(tmp_path: Path) -> None:
    def line(verb: str, resource: str, stage: str = "ResponseComplete") -> str:
        return json.dumps({"stage": stage, "verb": verb, "objectRef": {"resource": resource}}) + "\n"

    log = tmp_path / "audit.log"
    log.write_text(line("patch", "nodes"))
    meter = RequestMeter(log)
    with log.open("a") as file:
        file.write(line("watch", "nodes", "ResponseStarted") + line("watch", "nodes"))
        file.write(line("patch", "nodes") + line("list", "pods") + '{"half a line')
    assert meter.counts() == {("watch", "nodes"): 1, ("patch", "nodes"): 1, ("list", "pods"): 1}
    assert meter.writes_and_reads() == (1, 2)


@pytest.mark.parametrize(
    ("ready", "condition", "right"), [(3, "True", True), (3, "False", False), (2, "True", False)]
)
def test_status_is_right_only_with_counts_and_condition(ready: int, condition: str, right: bool) -> None:
    conditions = [{"type": "Ready", "status": condition}]
    status = {"readyNodes": ready, "desiredNodes": 3, "conditions": conditions}
    assert shows(3, 3)(status) is right
    assert shows(3, 3)({}) is False


def test_figure_is_printed_with_its_ratio_to_the_target() -> None:
    assert str(Figure("memory", 100.0, "MiB", 200.0)).split() == ["memory,", "MiB", "100", "200", "0.50"]
    assert Figure("writes", 3.0, "requests").ratio is None
