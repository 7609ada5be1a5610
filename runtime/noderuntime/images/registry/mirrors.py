"""Tries mirrors first, then the registry. Hosts that recently failed are tried last.

So a dead mirror delays one request and not every layer. Which failures: an unavailable host for a minute, one
that served corrupt content for five.
"""

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

_CORRUPT_SECONDS = 300.0
_UNAVAILABLE_SECONDS = 60.0
_AVOIDED_LIMIT = 256
_KINDS = (NotFound, PermissionDenied, DataLoss, ResourceExhausted, InvalidArgument)

T = TypeVar("T")


class Mirrors:
    """The hosts of every registry, and which of them recently failed."""

    def __init__(self, hosts: Hosts, clock: Callable[[], float] = monotonic) -> None:
        self._hosts = hosts
        self._clock = clock
        self._avoided: dict[str, float] = {}
        """Hosts that are tried last, with the time until which they are."""

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
        hosts = await self._capable(reference, capability)
        for host in hosts:
            try:
                return await ask(host)
            except NoderuntimeError as error:
                _log.debug("registry host failed", image=reference, host=host.authority, error=error)
                failures.append((host, error))
                if len(hosts) > 1 and isinstance(error, DataLoss | Unavailable):
                    self._avoid(host, error)
                if isinstance(error, DataLoss) and is_corrupt():
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
        return sorted(hosts, key=self._is_avoided)

    def _is_avoided(self, host: RegistryHost) -> bool:
        return self._avoided.get(host.authority, 0.0) > self._clock()

    def _avoid(self, host: RegistryHost, error: NoderuntimeError) -> None:
        """Try a host last for a while. Corrupt content weighs more than a later failure."""
        seconds = _CORRUPT_SECONDS if isinstance(error, DataLoss) else _UNAVAILABLE_SECONDS
        if not self._is_avoided(host):
            _log.warning("registry host failed, trying it last", host=host.authority, s=seconds, error=error)
        until = max(self._clock() + seconds, self._avoided.pop(host.authority, 0.0))
        if len(self._avoided) >= _AVOIDED_LIMIT:
            self._avoided.pop(next(iter(self._avoided)))
        self._avoided[host.authority] = until


def _combined(
    reference: Reference, failures: list[tuple[RegistryHost, NoderuntimeError]]
) -> NoderuntimeError:
    message = f"image {reference}: " + "; ".join(dict.fromkeys(str(error) for _, error in failures))
    decisive = sorted(failures, key=lambda failed: failed[0].is_registry)[-1][1]
    for kind in _KINDS:
        if isinstance(decisive, kind):
            return kind(message)
    return Unavailable(message)
