"""Tries mirrors first, then the registry. Hosts that recently served corrupt content are tried last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from noderuntime.core import log
from noderuntime.core.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NoderuntimeError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from noderuntime.images.reference import Reference
from noderuntime.images.registry.endpoints import Capability, RegistryHost
from noderuntime.images.registry.hosts import Hosts

_log = log.get(__name__)

_DISTRUST_SECONDS = 300.0
_DISTRUSTED_LIMIT = 256
_KINDS = (NotFound, PermissionDenied, DataLoss, ResourceExhausted, InvalidArgument)

T = TypeVar("T")


class Mirrors:
    """The hosts of every registry, and which of them recently served corrupt content."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._distrusted: dict[str, float] = {}

    async def first(
        self,
        reference: Reference,
        capability: Capability,
        ask: Callable[[RegistryHost], Awaitable[T]],
        is_corrupt: Callable[[], bool] = lambda: False,
    ) -> T:
        """Return the result of the first host that succeeds.

        ``is_corrupt`` returns whether corrupt content was stored, so that no other host can help.
        The error contains the failure of each host. Its type is that of the registry's own failure, if any.
        """
        failures: list[tuple[RegistryHost, NoderuntimeError]] = []
        for host in await self._capable(reference, capability):
            try:
                return await ask(host)
            except NoderuntimeError as error:
                _log.debug("registry host failed", image=reference, host=host.authority, error=error)
                failures.append((host, error))
                if isinstance(error, DataLoss):
                    self._distrust(host)
                    if is_corrupt():
                        break
        raise _combined(reference, failures)

    async def _capable(self, reference: Reference, capability: Capability) -> list[RegistryHost]:
        hosts = [
            host for host in await self._hosts.lookup(reference.registry) if capability in host.capabilities
        ]
        if not hosts:
            raise FailedPrecondition(
                f"image {reference}: no host in hosts.toml has the capability {capability}"
            )
        now = monotonic()
        return sorted(hosts, key=lambda host: self._distrusted.get(host.authority, 0.0) > now)

    def _distrust(self, host: RegistryHost) -> None:
        self._distrusted.pop(host.authority, None)
        if len(self._distrusted) >= _DISTRUSTED_LIMIT:
            self._distrusted.pop(next(iter(self._distrusted)))
        self._distrusted[host.authority] = monotonic() + _DISTRUST_SECONDS


def _combined(
    reference: Reference, failures: list[tuple[RegistryHost, NoderuntimeError]]
) -> NoderuntimeError:
    message = f"image {reference}: " + "; ".join(dict.fromkeys(str(error) for _, error in failures))
    decisive = sorted(failures, key=lambda failed: failed[0].is_registry)[-1][1]
    for kind in _KINDS:
        if isinstance(decisive, kind):
            return kind(message)
    return Unavailable(message)
