"""The writes of a reconciliation: a refused one holds up no other."""

from __future__ import annotations

import asyncio

import pytest

from noderuntime_operator.concurrency import CONCURRENCY
from noderuntime_operator.kube import KubeError, NotLeader
from noderuntime_operator.writes import Outcome, Write, Writer


class Server:
    """Records writes and refuses those of some objects."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refuses: dict[str, Exception] = {}
        self.done: list[str] = []
        self.answers: list[float] = []
        """The times at which the writer noted an answer."""

    def write(self, name: str) -> Write:
        async def send() -> None:
            await asyncio.sleep(0)
            if name in self.refuses:
                raise self.refuses[name]
            self.done.append(name)

        return send

    def writes(self, *names: str) -> dict[str, Write]:
        return {name: self.write(name) for name in names}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def writer(server: Server) -> Writer:
    return Writer(lambda: server.now, lambda: server.answers.append(server.now))


async def test_refused_object_holds_up_no_other(server: Server, writer: Writer) -> None:
    server.refuses["Node b"] = KubeError(403, "a webhook refuses it")
    await writer.send(server.writes("Node a", "Node b", "Node c"))
    assert server.done == ["Node a", "Node c"]
    assert writer.finish().report == "Node b: a webhook refuses it"


async def test_refused_object_is_tried_again_when_it_is_due(server: Server, writer: Writer) -> None:
    server.refuses["Node b"] = KubeError(403, "refused")
    await writer.send(server.writes("Node b"))
    due = writer.finish().due
    assert due is not None
    assert 0 < due <= 2
    del server.refuses["Node b"]
    await writer.send(server.writes("Node b"))
    assert server.done == []
    server.now = due
    await writer.send(server.writes("Node b"))
    assert server.done == ["Node b"]
    assert writer.finish() == Outcome(due=None, failed=False, report="")


async def test_refusal_counts_when_it_is_sent_and_reported(server: Server, writer: Writer) -> None:
    server.refuses["Node b"] = KubeError(403, "refused")
    server.refuses["Node c"] = KubeError(409, "conflict")
    failed = []
    for names in (("Node c",), ("Node b", "Node c"), ("Node b",)):
        await writer.send(server.writes(*names))
        failed.append(writer.finish().failed)
    assert failed == [False, True, False]  # at last, the write was not due


async def test_refusal_ends_when_its_write_is_no_longer_planned(server: Server, writer: Writer) -> None:
    server.refuses["Node b"] = KubeError(403, "refused")
    await writer.send(server.writes("Node b"))
    writer.finish()
    await writer.send(server.writes("Node c"))
    assert writer.finish() == Outcome(due=None, failed=False, report="")


async def test_conflict_is_reported_when_it_does_not_pass(server: Server, writer: Writer) -> None:
    server.refuses["Node b"] = KubeError(409, "conflict")
    for _ in range(2):
        await writer.send(server.writes("Node b"))
        server.now += 60
        assert writer.finish().report == ""
    await writer.send(server.writes("Node b"))
    assert writer.finish().report == "Node b: conflict"


async def test_report_names_three_refused_objects(server: Server, writer: Writer) -> None:
    names = [f"Node {number}" for number in range(5)]
    server.refuses = {name: KubeError(403, "refused") for name in names}
    await writer.send(server.writes(*names))
    assert writer.finish().report == "Node 0: refused; Node 1: refused; Node 2: refused; and 2 more"


async def test_each_answered_write_is_progress(server: Server, writer: Writer) -> None:
    server.refuses["Node b"] = KubeError(429, "too many requests")
    await writer.send(server.writes("Node a", "Node b", "Node c"))
    assert len(server.answers) == 3
    server.refuses["Node d"] = KubeError(0, "timed out")
    with pytest.raises(KubeError):
        await writer.send(server.writes("Node d"))
    assert len(server.answers) == 3


@pytest.mark.parametrize("error", [KubeError(0, "unreachable"), NotLeader()])
async def test_writes_end_when_all_would_fail(server: Server, writer: Writer, error: Exception) -> None:
    names = [f"Node {number}" for number in range(CONCURRENCY * 10)]
    server.refuses = dict.fromkeys(names[:CONCURRENCY], error)
    with pytest.raises(type(error)):
        await writer.send(server.writes(*names))
    assert len(server.done) < CONCURRENCY
