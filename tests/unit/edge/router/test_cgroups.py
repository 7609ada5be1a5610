"""The choice of the cgroup driver."""

from __future__ import annotations

import grpc
import pytest

from noderuntime.core.errors import Unavailable
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router import cgroup_driver as cgroups
from noderuntime.edge.router.upstream import Reply, UpstreamStatus

AWAY = UpstreamStatus(grpc.StatusCode.UNAVAILABLE, "away")


class Metadata:
    """Stores values as the ledger does."""

    def __init__(self, **kept: str) -> None:
        self.kept = kept

    async def meta(self, key: str) -> str | None:
        return self.kept.get(key)

    async def set_meta(self, key: str, value: str) -> None:
        self.kept[key] = value


class FakeUpstream:
    """Gives each answer in turn, and repeats the last one."""

    def __init__(self, *answers: int | UpstreamStatus) -> None:
        self._answers = list(answers)

    def unary(self, path: str, request: bytes, *, timeout: float) -> FakeUpstream:
        return self

    async def reply(self) -> Reply:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, UpstreamStatus):
            raise answer
        reported = api_pb2.RuntimeConfigResponse(linux={"cgroup_driver": answer})
        return Reply(reported.SerializeToString(), (), ())


async def _driver(configured: str | None, upstream: FakeUpstream | None, metadata: Metadata) -> str:
    return await cgroups.cgroup_driver(configured, upstream, metadata)  # type: ignore[arg-type]


async def test_the_configured_driver_is_used() -> None:
    assert await _driver("systemd", FakeUpstream(api_pb2.CGROUPFS), Metadata()) == "systemd"


@pytest.mark.parametrize(
    ("reported", "driver"), [(api_pb2.SYSTEMD, "systemd"), (api_pb2.CGROUPFS, "cgroupfs")]
)
async def test_the_upstreams_driver_is_used_and_stored(reported: int, driver: str) -> None:
    metadata = Metadata(cgroup_driver="other")
    assert await _driver(None, FakeUpstream(reported), metadata) == driver
    assert metadata.kept == {"cgroup_driver": driver}


async def test_a_stored_driver_does_not_wait_for_the_upstream() -> None:
    assert await _driver(None, FakeUpstream(AWAY), Metadata(cgroup_driver="systemd")) == "systemd"


async def test_a_first_start_waits_for_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_PAUSE_SECONDS", 0)
    assert await _driver(None, FakeUpstream(AWAY, AWAY, api_pb2.CGROUPFS), Metadata()) == "cgroupfs"


async def test_the_wait_of_a_first_start_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(cgroups, "_PAUSE_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="away"):
        await _driver(None, FakeUpstream(AWAY), Metadata())
