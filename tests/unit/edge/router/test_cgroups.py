"""Where the cgroup driver comes from."""

from __future__ import annotations

import grpc
import pytest

from noderuntime.core.errors import Unavailable
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router import cgroup_driver as cgroups
from noderuntime.edge.router.upstream import Reply, UpstreamStatus

AWAY = UpstreamStatus(grpc.StatusCode.UNAVAILABLE, "away")


class Memory:
    """Keeps values as the ledger does."""

    def __init__(self, **kept: str) -> None:
        self.kept = kept

    async def meta(self, key: str) -> str | None:
        return self.kept.get(key)

    async def set_meta(self, key: str, value: str) -> None:
        self.kept[key] = value


class FakeUpstream:
    """Gives one answer after the other, the last one for ever."""

    def __init__(self, *answers: int | UpstreamStatus) -> None:
        self._answers = list(answers)

    def unary(self, path: str, request: bytes, *, timeout: float) -> FakeUpstream:
        return self

    async def reply(self) -> Reply:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, UpstreamStatus):
            raise answer
        told = api_pb2.RuntimeConfigResponse(linux={"cgroup_driver": answer})
        return Reply(told.SerializeToString(), (), ())


async def _driver(configured: str | None, upstream: FakeUpstream | None, memory: Memory) -> str:
    return await cgroups.cgroup_driver(configured, upstream, memory)  # type: ignore[arg-type]


async def test_what_is_configured_counts() -> None:
    assert await _driver("systemd", FakeUpstream(api_pb2.CGROUPFS), Memory()) == "systemd"


@pytest.mark.parametrize(("told", "driver"), [(api_pb2.SYSTEMD, "systemd"), (api_pb2.CGROUPFS, "cgroupfs")])
async def test_the_upstream_tells_and_is_remembered(told: int, driver: str) -> None:
    memory = Memory(cgroup_driver="other")
    assert await _driver(None, FakeUpstream(told), memory) == driver
    assert memory.kept == {"cgroup_driver": driver}


async def test_a_known_driver_does_not_wait_for_the_upstream() -> None:
    assert await _driver(None, FakeUpstream(AWAY), Memory(cgroup_driver="systemd")) == "systemd"


async def test_a_first_start_waits_for_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_PAUSE_SECONDS", 0)
    assert await _driver(None, FakeUpstream(AWAY, AWAY, api_pb2.CGROUPFS), Memory()) == "cgroupfs"


async def test_a_first_start_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(cgroups, "_PAUSE_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="away"):
        await _driver(None, FakeUpstream(AWAY), Memory())
