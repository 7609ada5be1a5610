"""Version, Status and RuntimeConfig: one answer made of two."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

import noderuntime
from noderuntime.core.errors import ToolError
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.upstream import Reply, UpstreamStatus
from noderuntime.edge.server.node_service import NodeService
from noderuntime.node.executor.base import Features
from noderuntime.node.executor.probes import Probes

AWAY = UpstreamStatus(grpc.StatusCode.UNAVAILABLE, "the node's own runtime does not answer")


class FakeExecutor:
    """A handler that is broken or not."""

    def __init__(self, name: str, *, broken: bool = False) -> None:
        self.name = name
        self.probes = 0
        self._broken = broken

    async def probe(self) -> Features:
        self.probes += 1
        if self._broken:
            raise ToolError(self.name, "features", 127, "no such tool")
        return Features("1.0", user_namespaces=True, recursive_read_only_mounts=True)


class HangingExecutor(FakeExecutor):
    """A handler whose binary never ends."""

    async def probe(self) -> Features:
        await asyncio.Event().wait()
        raise AssertionError


class FakeNetwork:
    """A network that is ready or not."""

    def __init__(self, reason: str = "") -> None:
        self._reason = reason

    async def ready(self) -> tuple[bool, str]:
        return not self._reason, self._reason


class FakeUpstream:
    """Answers every call with the same message or status."""

    def __init__(
        self, answer: api_pb2.StatusResponse | api_pb2.RuntimeConfigResponse | UpstreamStatus
    ) -> None:
        self._answer = answer
        self.asked: list[tuple[str, bytes]] = []

    def unary(self, path: str, request: bytes, *, timeout: float) -> FakeUpstream:
        self.asked.append((path, request))
        return self

    async def reply(self) -> Reply:
        if isinstance(self._answer, UpstreamStatus):
            raise self._answer
        return Reply(self._answer.SerializeToString(), (), ())


def _service(
    upstream: FakeUpstream | None, *, network: FakeNetwork | None = None, broken: bool = False
) -> NodeService:
    executors = {name: FakeExecutor(name, broken=broken) for name in ("runc", "gvisor")}
    probes = Probes(executors, user_namespaces=True)  # type: ignore[arg-type]
    return NodeService(probes, network or FakeNetwork(), upstream, "systemd")  # type: ignore[arg-type]


def _status(**conditions: bool) -> api_pb2.StatusResponse:
    return api_pb2.StatusResponse(
        status=api_pb2.RuntimeStatus(
            conditions=[
                api_pb2.RuntimeCondition(type=name, status=value, reason="theirs")
                for name, value in conditions.items()
            ]
        ),
        runtime_handlers=[
            api_pb2.RuntimeHandler(name=name, features={"user_namespaces": True}) for name in ("", "runc")
        ],
        features=api_pb2.RuntimeFeatures(supplemental_groups_policy=True),
    )


def _conditions(status: api_pb2.StatusResponse) -> dict[str, tuple[bool, str]]:
    return {one.type: (one.status, one.reason) for one in status.status.conditions}


def _messages(status: api_pb2.StatusResponse) -> dict[str, str]:
    return {one.type: one.message for one in status.status.conditions}


async def test_version_is_that_of_noderuntime() -> None:
    version = await _service(None).Version(api_pb2.VersionRequest())
    assert (version.runtime_name, version.runtime_version, version.runtime_api_version) == (
        "noderuntime",
        noderuntime.__version__,
        "v1",
    )


async def test_status_has_handlers_of_both_and_ours_win_by_name() -> None:
    status = await _service(FakeUpstream(_status(RuntimeReady=True))).Status(api_pb2.StatusRequest())
    assert [handler.name for handler in status.runtime_handlers] == ["runc", "gvisor", ""]
    runc, _, default = status.runtime_handlers
    assert runc.features.recursive_read_only_mounts
    assert runc.features.user_namespaces
    assert default.features.user_namespaces


async def test_status_has_a_feature_only_if_both_sides_have_it() -> None:
    status = await _service(FakeUpstream(_status())).Status(api_pb2.StatusRequest())
    assert status.features.supplemental_groups_policy
    assert not status.features.user_namespaces_host_network
    theirs = _status()
    theirs.features.user_namespaces_host_network = True
    status = await _service(FakeUpstream(theirs)).Status(api_pb2.StatusRequest())
    assert status.features.user_namespaces_host_network


async def test_status_is_not_ready_if_the_upstream_is_not() -> None:
    upstream = FakeUpstream(_status(RuntimeReady=True, NetworkReady=False, Peculiar=False))
    status = await _service(upstream).Status(api_pb2.StatusRequest())
    assert _conditions(status) == {
        "RuntimeReady": (True, "theirs"),
        "NetworkReady": (False, "theirs"),
        "Peculiar": (False, "theirs"),
        "HandlersReady": (True, ""),
    }


async def test_status_is_not_ready_if_our_network_is_not() -> None:
    upstream = FakeUpstream(_status(RuntimeReady=True, NetworkReady=True))
    network = FakeNetwork("plugin bridge is missing")
    status = await _service(upstream, network=network).Status(api_pb2.StatusRequest())
    assert _conditions(status)["RuntimeReady"] == (True, "theirs")
    assert _conditions(status)["NetworkReady"] == (False, "NetworkPluginNotReady")
    assert _messages(status)["NetworkReady"] == "plugin bridge is missing"


async def test_status_has_both_messages_if_neither_network_is_ready() -> None:
    theirs = _status(NetworkReady=False)
    theirs.status.conditions[0].message = "no network config found"
    network = FakeNetwork("plugin bridge is missing")
    status = await _service(FakeUpstream(theirs), network=network).Status(api_pb2.StatusRequest())
    assert _conditions(status)["NetworkReady"] == (False, "theirs")
    assert _messages(status)["NetworkReady"] == (
        "no network config found; noderuntime: plugin bridge is missing"
    )


async def test_status_keeps_upstream_fields_of_a_newer_schema() -> None:
    """Field 100 is in no message of today's schema."""
    unknown = b"\xa2\x06\x03new"
    theirs = _status(RuntimeReady=True)
    for message in (theirs, theirs.status, theirs.status.conditions[0], theirs.features):
        message.MergeFromString(unknown)
    for handler in theirs.runtime_handlers:
        handler.features.MergeFromString(unknown)
    status = await _service(FakeUpstream(theirs)).Status(api_pb2.StatusRequest())
    sent = api_pb2.StatusResponse.FromString(status.SerializeToString())
    default = next(handler for handler in sent.runtime_handlers if not handler.name)
    for message in (sent, sent.status, sent.status.conditions[0], sent.features, default.features):
        assert unknown in message.SerializeToString()
    assert sent.SerializeToString().count(unknown) == 5


async def test_unavailable_upstream_is_a_condition_of_status() -> None:
    status = await _service(FakeUpstream(AWAY)).Status(api_pb2.StatusRequest())
    assert _conditions(status) == {
        "RuntimeReady": (False, "UpstreamNotReady"),
        "NetworkReady": (True, ""),
        "HandlersReady": (True, ""),
    }
    assert status.status.conditions[0].message == AWAY.details
    assert status.features.supplemental_groups_policy


async def test_network_condition_without_upstream_is_ours() -> None:
    service = _service(None, network=FakeNetwork("no configuration in /etc/cni/net.d"))
    status = await service.Status(api_pb2.StatusRequest())
    assert _conditions(status) == {
        "RuntimeReady": (True, ""),
        "NetworkReady": (False, "NetworkPluginNotReady"),
        "HandlersReady": (True, ""),
    }


async def test_status_names_broken_handlers_and_their_errors() -> None:
    status = await _service(None, broken=True).Status(api_pb2.StatusRequest(verbose=True))
    assert json.loads(status.info["noderuntime"]) == {
        "handlers": {},
        "errors": {
            "runc": "runc features failed with exit status 127: no such tool",
            "gvisor": "gvisor features failed with exit status 127: no such tool",
        },
    }
    assert not status.runtime_handlers[0].features.recursive_read_only_mounts
    assert _conditions(status)["HandlersReady"] == (False, "HandlerBroken")
    assert _messages(status)["HandlersReady"] == (
        "runc: runc features failed with exit status 127: no such tool;"
        " gvisor: gvisor features failed with exit status 127: no such tool"
    )
    assert _conditions(status)["RuntimeReady"] == (True, "")


async def test_status_answers_while_one_handler_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noderuntime.node.executor.probes.PROBE_SECONDS", 0.1)
    executors = {"runc": FakeExecutor("runc"), "gvisor": HangingExecutor("gvisor")}
    probes = Probes(executors, user_namespaces=True)  # type: ignore[arg-type]
    service = NodeService(probes, FakeNetwork(), None, "cgroupfs")  # type: ignore[arg-type]
    async with asyncio.timeout(2):
        status = await service.Status(api_pb2.StatusRequest())
    _, runc, gvisor = status.runtime_handlers
    assert runc.features.user_namespaces
    assert not gvisor.features.user_namespaces
    assert _messages(status)["HandlersReady"] == "gvisor: handler gvisor did not answer within 0.1 s"


async def test_repeated_status_does_not_probe_again() -> None:
    executor = FakeExecutor("runc")
    probes = Probes({"runc": executor}, user_namespaces=True)  # type: ignore[dict-item]
    service = NodeService(probes, FakeNetwork(), None, "cgroupfs")  # type: ignore[arg-type]
    for _ in range(5):
        await service.Status(api_pb2.StatusRequest())
    assert executor.probes == 1


async def test_kernel_without_userns_removes_the_feature() -> None:
    probes = Probes({"runc": FakeExecutor("runc")}, user_namespaces=False)  # type: ignore[dict-item]
    service = NodeService(probes, FakeNetwork(), None, "cgroupfs")  # type: ignore[arg-type]
    status = await service.Status(api_pb2.StatusRequest())
    default, runc = status.runtime_handlers
    assert (default.name, default.features) == ("", runc.features), "alone the first one is the default"
    assert runc.features.recursive_read_only_mounts
    assert not runc.features.user_namespaces
    assert not status.features.user_namespaces_host_network


async def test_status_shows_reloaded_handlers_at_once() -> None:
    executors = {"runc": FakeExecutor("runc")}
    probes = Probes(executors, user_namespaces=True)  # type: ignore[arg-type]
    service = NodeService(probes, FakeNetwork(), None, "cgroupfs")  # type: ignore[arg-type]
    await service.Status(api_pb2.StatusRequest())
    executors["late"] = FakeExecutor("late")
    status = await service.Status(api_pb2.StatusRequest(verbose=True))
    assert [handler.name for handler in status.runtime_handlers] == ["", "runc", "late"]
    assert "late" in status.info["noderuntime"]
    assert executors["runc"].probes == 1, "the others are not asked again"
    executors["runc"] = FakeExecutor("runc")
    await service.Status(api_pb2.StatusRequest())
    assert executors["runc"].probes == 1, "another program under the same name is"
    del executors["runc"]
    status = await service.Status(api_pb2.StatusRequest())
    assert [handler.name for handler in status.runtime_handlers] == ["", "late"]


async def test_cgroup_driver_is_that_of_the_upstream() -> None:
    theirs = api_pb2.RuntimeConfigResponse(linux={"cgroup_driver": api_pb2.CGROUPFS})
    reported = await _service(FakeUpstream(theirs)).RuntimeConfig(api_pb2.RuntimeConfigRequest())
    assert reported.linux.cgroup_driver == api_pb2.CGROUPFS


@pytest.mark.parametrize("upstream", [None, FakeUpstream(AWAY)], ids=["alone", "away"])
async def test_cgroup_driver_without_upstreams_answer_is_ours(upstream: FakeUpstream | None) -> None:
    reported = await _service(upstream).RuntimeConfig(api_pb2.RuntimeConfigRequest())
    assert reported.linux.cgroup_driver == api_pb2.SYSTEMD


async def test_old_upstream_leaves_the_driver_to_the_kubelet() -> None:
    old = FakeUpstream(UpstreamStatus(grpc.StatusCode.UNIMPLEMENTED, "unknown method"))
    with pytest.raises(UpstreamStatus):
        await _service(old).RuntimeConfig(api_pb2.RuntimeConfigRequest())


async def test_pod_cidr_is_forwarded_to_the_upstream() -> None:
    upstream = FakeUpstream(api_pb2.RuntimeConfigResponse())
    request = api_pb2.UpdateRuntimeConfigRequest(
        runtime_config={"network_config": {"pod_cidr": "192.0.2.0/24"}}
    )
    await _service(upstream).UpdateRuntimeConfig(request)
    assert upstream.asked == [("/runtime.v1.RuntimeService/UpdateRuntimeConfig", request.SerializeToString())]


async def test_reload_during_status_does_not_fail_it() -> None:
    class Slow(FakeExecutor):
        async def probe(self) -> Features:
            executors["late"] = FakeExecutor("late")
            executors.pop("gvisor", None)
            return await super().probe()

    executors = {"runc": Slow("runc"), "gvisor": FakeExecutor("gvisor")}
    probes = Probes(executors, user_namespaces=True)  # type: ignore[arg-type]
    service = NodeService(probes, FakeNetwork(), None, "cgroupfs")  # type: ignore[arg-type]
    status = await service.Status(api_pb2.StatusRequest(verbose=True))
    assert [handler.name for handler in status.runtime_handlers] == ["", "runc", "gvisor"]
    status = await service.Status(api_pb2.StatusRequest())
    assert [handler.name for handler in status.runtime_handlers] == ["", "runc", "late"]
