"""The calls about the node: Version, Status, RuntimeConfig, UpdateRuntimeConfig.

They are answered here, with what only the upstream knows: its handlers, whether it and the network are
ready, and its cgroup driver, which ours must match.
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
from noderuntime.edge.server.join_status import join
from noderuntime.node.executor.base import Features
from noderuntime.node.executor.probes import Probes
from noderuntime.node.host.cgroup_names import CgroupDriver
from noderuntime.node.network.base import Network

_log = log.get(__name__)

_SERVICE = "/runtime.v1.RuntimeService"
_UPSTREAM_SECONDS = 10.0
_MESSAGE_LIMIT = 2000
_EVERYTHING = api_pb2.RuntimeFeatures(supplemental_groups_policy=True, user_namespaces_host_network=True)
"""The features assumed of an upstream that does not respond, so that ours are reported unchanged."""
_DRIVERS: Mapping[CgroupDriver, api_pb2.CgroupDriver] = {
    "systemd": api_pb2.SYSTEMD,
    "cgroupfs": api_pb2.CGROUPFS,
}


Answers = Mapping[str, Features | NoderuntimeError]
"""The features of each handler, or the error of its probe."""


class NodeService:
    """The node's calls of RuntimeService."""

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
        """CRI Version. The kubelet shows it as the node's container runtime."""
        return api_pb2.VersionResponse(
            version="0.1.0",
            runtime_name="noderuntime",
            runtime_version=noderuntime.__version__,
            runtime_api_version="v1",
        )

    async def Status(self, request: api_pb2.StatusRequest) -> api_pb2.StatusResponse:
        """CRI Status: conditions, handlers and features of both. Answers without the upstream too."""
        ours, theirs = await asyncio.gather(self._own_status(request.verbose), self._upstream_status(request))
        return ours if theirs is None else join(ours, theirs)

    async def RuntimeConfig(self, request: api_pb2.RuntimeConfigRequest) -> api_pb2.RuntimeConfigResponse:
        """CRI RuntimeConfig: the upstream's cgroup driver, or ours while it is unavailable."""
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
        """CRI UpdateRuntimeConfig: forward the pod CIDR to the upstream. It is not used here."""
        if self._upstream is None:
            return api_pb2.UpdateRuntimeConfigResponse()
        reply = await self._ask("UpdateRuntimeConfig", request.SerializeToString())
        return api_pb2.UpdateRuntimeConfigResponse.FromString(reply)

    async def _own_status(self, verbose: bool) -> api_pb2.StatusResponse:
        (ready, reason), handlers = await asyncio.gather(self._network.ready(), self._probes.all())
        described = self._described(handlers)
        response = api_pb2.StatusResponse(
            status=api_pb2.RuntimeStatus(
                conditions=[
                    api_pb2.RuntimeCondition(type="RuntimeReady", status=True),
                    _condition("NetworkReady", ready, "NetworkPluginNotReady", reason),
                    _handlers_ready(handlers),
                ]
            ),
            runtime_handlers=described,
            features=api_pb2.RuntimeFeatures(
                supplemental_groups_policy=True,
                user_namespaces_host_network=any(one.features.user_namespaces for one in described),
            ),
        )
        if verbose:
            versions = {name: one.version for name, one in handlers.items() if isinstance(one, Features)}
            found = {"handlers": versions, "errors": _errors(handlers)}
            response.info["noderuntime"] = json.dumps(found)
        return response

    def _described(self, handlers: Answers) -> list[api_pb2.RuntimeHandler]:
        """Return all handlers. Without an upstream, the first is also the default handler, without a name."""
        described = [_describe(name, answer) for name, answer in handlers.items()]
        if self._upstream is None:
            return [api_pb2.RuntimeHandler(features=described[0].features), *described]
        return described

    async def _upstream_status(self, request: api_pb2.StatusRequest) -> api_pb2.StatusResponse | None:
        """Return the upstream's status. An upstream that does not respond makes the runtime not ready."""
        if self._upstream is None:
            return None
        try:
            return api_pb2.StatusResponse.FromString(await self._ask("Status", request.SerializeToString()))
        except UpstreamStatus as error:
            _log.warning("the upstream did not return its status", code=error.code.name, error=error.details)
            away = api_pb2.RuntimeCondition(
                type="RuntimeReady", status=False, reason="UpstreamNotReady", message=error.details
            )
            return api_pb2.StatusResponse(
                status=api_pb2.RuntimeStatus(conditions=[away]), features=_EVERYTHING
            )

    async def _ask(self, call: str, request: bytes) -> bytes:
        assert self._upstream is not None  # noqa: S101 - all callers check
        reply = await self._upstream.unary(f"{_SERVICE}/{call}", request, timeout=_UPSTREAM_SECONDS).reply()
        return reply.body


def _describe(handler: str, answer: Features | NoderuntimeError) -> api_pb2.RuntimeHandler:
    """Return CRI's description of a handler. A broken handler has no features."""
    described = api_pb2.RuntimeHandler(name=handler, features=api_pb2.RuntimeHandlerFeatures())
    if isinstance(answer, Features):
        described.features.recursive_read_only_mounts = answer.recursive_read_only_mounts
        described.features.user_namespaces = answer.user_namespaces
    return described


def _errors(handlers: Answers) -> dict[str, str]:
    """Return the errors of the broken handlers."""
    return {name: str(answer) for name, answer in handlers.items() if isinstance(answer, NoderuntimeError)}


def _handlers_ready(handlers: Answers) -> api_pb2.RuntimeCondition:
    """Return the condition that names broken handlers. The kubelet ignores it: other handlers' pods run."""
    errors = _errors(handlers)
    message = "; ".join(f"{name}: {error}" for name, error in errors.items())
    return _condition("HandlersReady", not errors, "HandlerBroken", message[:_MESSAGE_LIMIT])


def _condition(kind: str, status: bool, reason: str, message: str) -> api_pb2.RuntimeCondition:
    """Return a condition. Reason and message are those of its false state."""
    if status:
        return api_pb2.RuntimeCondition(type=kind, status=True)
    return api_pb2.RuntimeCondition(type=kind, status=False, reason=reason, message=message)
