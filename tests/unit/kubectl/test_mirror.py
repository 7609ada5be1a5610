"""``kubectl noderuntime watch``: a copy of the API server's objects survives gaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any, cast

import pytest
from manifests import instance

from kubectl_noderuntime.cluster import Cluster
from kubectl_noderuntime.errors import Refused
from kubectl_noderuntime.mirror import Mirror

Json = dict[str, Any]
Lists = list[list[str] | Refused]
Watches = list[list[tuple[str, str] | Refused]]


class FakeCluster:
    """Answers with one list and one watch after the other; then a watch that stays silent."""

    def __init__(self, lists: Lists, watches: Watches) -> None:
        self._lists: Iterator[list[str] | Refused] = iter(lists)
        self._watches: Iterator[list[tuple[str, str] | Refused]] = iter(watches)

    async def snapshot(self, kind: str, **selectors: str) -> tuple[list[Json], str]:
        found = next(self._lists)
        if isinstance(found, Refused):
            raise found
        return [instance(name) for name in found], "1"

    async def watch(self, kind: str, version: str, **selectors: str) -> AsyncGenerator[tuple[str, Json]]:
        for change in next(self._watches, []):
            if isinstance(change, Refused):
                raise change
            yield change[0], instance(change[1])
        if not self.has_more_lists:
            await asyncio.Event().wait()

    @property
    def has_more_lists(self) -> bool:
        return cast(Any, self._lists).__length_hint__() > 0


def mirror(lists: Lists, watches: Watches) -> Mirror:
    cluster = cast(Cluster, FakeCluster(lists, watches))
    return Mirror(cluster, "NodeRuntimeInstance", reconnect_seconds=0)


async def settled(found: Mirror, names: set[str]) -> None:
    """Follow until the mirror has exactly these objects and no problem."""
    changed = asyncio.Event()
    following = asyncio.create_task(found.follow(changed))
    async with asyncio.timeout(5):
        while found.objects.keys() != names or found.problem:
            await changed.wait()
            changed.clear()
    following.cancel()


async def test_changes_of_a_watch_are_applied() -> None:
    await settled(mirror([["a", "b"]], [[("ADDED", "c"), ("DELETED", "a")]]), {"b", "c"})


@pytest.mark.parametrize("end", [[], [Refused(410, "too old")], [Refused(0, "no answer")]])
async def test_objects_are_listed_again_after_a_gap(end: list[Refused]) -> None:
    await settled(mirror([["a", "deleted-in-the-gap"], ["a", "b"]], [[*end]]), {"a", "b"})


async def test_lost_connection_is_a_problem_until_the_next_list() -> None:
    found = mirror([["a"], Refused(0, "no answer"), Refused(0, "still none"), ["a", "b"]], [])
    changed, problems = asyncio.Event(), []
    following = asyncio.create_task(found.follow(changed))
    async with asyncio.timeout(5):
        while "b" not in found.objects:
            await changed.wait()
            changed.clear()
            problems.append(found.problem)
    following.cancel()
    assert "no answer" in problems
    assert problems[-1] == found.problem == ""


@pytest.mark.parametrize("lists", [[Refused(0, "no answer")], [["a"], Refused(403, "forbidden")]])
async def test_first_failure_and_a_lost_permission_end_it(lists: Lists) -> None:
    with pytest.raises(Refused):
        await mirror(lists, []).follow(asyncio.Event())
