"""What is asked of the node as a whole: Version, Status, RuntimeConfig, UpdateRuntimeConfig.

We answer, with the upstream's word on what only it can know: its own handlers,
whether it and the network are ready, and its cgroup driver, with which ours must agree.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import grpc

import noderuntime
from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.upstream import Upstream, UpstreamStatus
from noderuntime.node.executor.base import Features
from noderuntime.node.executor.probes import Probes
from noderuntime.node.host.cgroup_names import CgroupDriver
from noderuntime.node.network.base import Network

_log = log.get(__name__)

_SERVICE = "/runtime.v1.RuntimeService"
_UPSTREAM_SECONDS = 10.0
_EVERYTHING = api_pb2.RuntimeFeatures(supplemental_groups_policy=True, user_namespaces_host_network=True)
"""What somebody offers who takes nothing away from the other side."""
_DRIVERS: Mapping[CgroupDriver, api_pb2.CgroupDriver] = {
    "systemd": api_pb2.SYSTEMD,
    "cgroupfs": api_pb2.CGROUPFS,
}


class NodeService:
    """The verbs about the node; ``executors`` may change meanwhile."""

    def __init__(
        self,
        probes: Probes,
        network: Network,
        upstream: Upstream | None,
        cgroup_driver: CgroupDriver,
    ) -> None:
        self._probes = probes
        self._network = network
        self._upstream = upstream
        self._cgroup_driver = cgroup_driver

    async def Version(self, request: api_pb2.VersionRequest) -> api_pb2.VersionResponse:
        """CRI Version: who we are; the kubelet shows it as the node's runtime."""
        return api_pb2.VersionResponse(
            version="0.1.0",
            runtime_name="noderuntime",
            runtime_version=noderuntime.__version__,
            runtime_api_version="v1",
        )

    async def Status(self, request: api_pb2.StatusRequest) -> api_pb2.StatusResponse:
        """CRI Status: conditions, handlers and features of both sides; answers without the upstream too."""
        ours, theirs = await asyncio.gather(self._own_status(), self._upstream_status(request))
        status = _join(ours, theirs) if theirs is not None else ours
        if request.verbose:
            status.info["noderuntime"] = json.dumps({"handlers": await self._words()})
        return status

    async def RuntimeConfig(self, request: api_pb2.RuntimeConfigRequest) -> api_pb2.RuntimeConfigResponse:
        """CRI RuntimeConfig: the upstream's cgroup driver; ours, which is the same, while it is away."""
        if self._upstream is not None:
            try:
                reply = await self._ask("RuntimeConfig", request.SerializeToString())
                return api_pb2.RuntimeConfigResponse.FromString(reply)
            except UpstreamStatus as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
        return api_pb2.RuntimeConfigResponse(
            linux=api_pb2.LinuxRuntimeConfiguration(cgroup_driver=_DRIVERS[self._cgroup_driver])
        )

    async def UpdateRuntimeConfig(
        self, request: api_pb2.UpdateRuntimeConfigRequest
    ) -> api_pb2.UpdateRuntimeConfigResponse:
        """CRI UpdateRuntimeConfig: the pod CIDR is the upstream's business; CNI's own files count for us."""
        if self._upstream is not None:
            await self._ask("UpdateRuntimeConfig", request.SerializeToString())
        return api_pb2.UpdateRuntimeConfigResponse()

    async def _own_status(self) -> api_pb2.StatusResponse:
        ready, reason = await self._network.ready()
        handlers = await self._described()
        inside = any(one.features.user_namespaces for one in handlers)
        return api_pb2.StatusResponse(
            status=api_pb2.RuntimeStatus(
                conditions=[
                    api_pb2.RuntimeCondition(type="RuntimeReady", status=True),
                    api_pb2.RuntimeCondition(
                        type="NetworkReady",
                        status=ready,
                        reason="" if ready else "NetworkPluginNotReady",
                        message="" if ready else reason,
                    ),
                ]
            ),
            runtime_handlers=handlers,
            features=api_pb2.RuntimeFeatures(
                supplemental_groups_policy=True, user_namespaces_host_network=inside
            ),
        )

    async def _described(self) -> list[api_pb2.RuntimeHandler]:
        """Describe all handlers; where there is no upstream, the first one goes by no name as well."""
        handlers = [_describe(name, told) for name, told in (await self._probes.all()).items()]
        if self._upstream is None:
            return [api_pb2.RuntimeHandler(features=handlers[0].features), *handlers]
        return handlers

    async def _words(self) -> dict[str, str]:
        """Return what each handler's binary said of itself: its version, or what is wrong with it."""
        return {
            name: told.version if isinstance(told, Features) else str(told)
            for name, told in (await self._probes.all()).items()
        }

    async def _upstream_status(self, request: api_pb2.StatusRequest) -> api_pb2.StatusResponse | None:
        """Ask the upstream; one that does not answer makes the runtime not ready."""
        if self._upstream is None:
            return None
        try:
            return api_pb2.StatusResponse.FromString(await self._ask("Status", request.SerializeToString()))
        except UpstreamStatus as error:
            _log.warning("the upstream gives no status", code=error.code.name, error=error.details)
            away = api_pb2.RuntimeCondition(
                type="RuntimeReady", status=False, reason="UpstreamNotReady", message=error.details
            )
            return api_pb2.StatusResponse(
                status=api_pb2.RuntimeStatus(conditions=[away]), features=_EVERYTHING
            )

    async def _ask(self, call: str, request: bytes) -> bytes:
        assert self._upstream is not None  # noqa: S101 - every caller has looked
        reply = await self._upstream.unary(f"{_SERVICE}/{call}", request, timeout=_UPSTREAM_SECONDS).reply()
        return reply.body


def _describe(handler: str, told: Features | NoderuntimeError) -> api_pb2.RuntimeHandler:
    """Put a handler's features into CRI's words; a broken handler has none."""
    described = api_pb2.RuntimeHandler(name=handler, features=api_pb2.RuntimeHandlerFeatures())
    if isinstance(told, Features):
        described.features.recursive_read_only_mounts = told.recursive_read_only_mounts
        described.features.user_namespaces = told.user_namespaces
    return described


def _join(ours: api_pb2.StatusResponse, theirs: api_pb2.StatusResponse) -> api_pb2.StatusResponse:
    """Lay the upstream's conditions over ours; put its handlers beside ours, which win by name."""
    conditions = {condition.type: condition for condition in ours.status.conditions}
    conditions.update({condition.type: condition for condition in theirs.status.conditions})
    names = {handler.name for handler in ours.runtime_handlers}
    return api_pb2.StatusResponse(
        status=api_pb2.RuntimeStatus(conditions=conditions.values()),
        info=theirs.info,
        runtime_handlers=[
            *ours.runtime_handlers,
            *(handler for handler in theirs.runtime_handlers if handler.name not in names),
        ],
        features=api_pb2.RuntimeFeatures(
            supplemental_groups_policy=ours.features.supplemental_groups_policy
            and theirs.features.supplemental_groups_policy,
            user_namespaces_host_network=ours.features.user_namespaces_host_network
            and theirs.features.user_namespaces_host_network,
        ),
    )
