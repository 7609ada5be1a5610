"""Leader election by a Lease: of all operators of a cluster, in any namespace, only one acts.

The client's own election is not used: it measures with the wall clock, a request of it has no deadline, so
an old leader can act beyond its lease, and it does not release the lease.

A leader renews every RETRY_SECONDS. Without a renewal it starts no write after RENEW_SECONDS, and each
write's deadline ends before LEASE_SECONDS, the time after which another operator takes the lease. Both
sides measure with their monotonic clock: the leader from before its renewal was sent, the other from when
it saw the renewal, so the leader always stops first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from noderuntime_operator.kube import Json, Kube, KubeError
from noderuntime_operator.metrics import Metrics

log = logging.getLogger(__name__)

LEASE_NAME = "noderuntime-operator"
LEASE_SECONDS = 15.0
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0
MARGIN_SECONDS = 1.0
"""How long before the lease's end the last write has ended."""
REQUEST_SECONDS = 4.0


def identity(namespace: str) -> str:
    """Return a unique name for this process: namespace, pod, and a random suffix for each start."""
    return f"{namespace}/{socket.gethostname()}_{secrets.token_hex(4)}"


class Election:
    """This process's part in the election."""

    def __init__(self, kube: Kube, identity: str, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.identity = identity
        self._metrics = metrics
        self.holder = ""
        """The identity of the leader that this process observed last; empty if no operator leads."""
        self._kube = kube
        self._lease: Json = _new_lease()
        self._seen_at = self._renewed_at = float("-inf")
        self._clock = clock
        self.alive_at = self._clock()

    @property
    def leads(self) -> bool:
        """Whether this process leads now."""
        return self._clock() - self._renewed_at < RENEW_SECONDS

    def seconds_to_write(self) -> float:
        """Return the deadline of a write that starts now; 0 if this process does not lead."""
        age = self._clock() - self._renewed_at
        return LEASE_SECONDS - MARGIN_SECONDS - age if age < RENEW_SECONDS else 0.0

    def __str__(self) -> str:
        if self.leads:
            return "this operator leads"
        return f"another operator ({self.holder}) leads" if self.holder else "no operator leads"

    async def run(self) -> None:
        """Acquire the lease and renew it until cancelled."""
        while True:
            before = str(self)
            try:
                await self.attempt()
            except KubeError as error:
                log.warning("leader election failed", extra={"error": str(error), "status": error.status})
            self._metrics.leads(leader=self.leads)
            if str(self) != before:
                log.info("leadership changed", extra={"now": str(self), "identity": self.identity})
            self.alive_at = self._clock()
            await asyncio.sleep(self._pause())

    async def release(self) -> None:
        """Give the lease up, so that another operator need not wait for its end."""
        if not self.leads:
            return
        self._renewed_at = float("-inf")
        try:
            await self._put("", 1)
        except KubeError as error:
            log.warning("the lease was not released", extra={"error": str(error)})

    async def attempt(self) -> None:
        """Read the lease, and take or renew it unless another operator holds it."""
        await self._observe()
        if self.holder not in ("", self.identity) and self._ends_in() > 0:
            self._renewed_at = float("-inf")
            return
        sent_at = self._clock()
        try:
            await self._put(self.identity, LEASE_SECONDS)
        except KubeError as error:
            if error.status == 409:
                return  # another operator was faster
            raise
        self._renewed_at = sent_at

    async def _observe(self) -> None:
        """Read the lease; note when this process saw it change."""
        found = await self._kube.get("Lease", LEASE_NAME, REQUEST_SECONDS) or _new_lease()
        if _version(found) != _version(self._lease):
            self._seen_at = self._clock()
        self._lease = found
        self.holder = (found.get("spec") or {}).get("holderIdentity") or ""

    def _ends_in(self) -> float:
        """Return the seconds after which the lease has ended, unless its holder renews it."""
        duration = (self._lease.get("spec") or {}).get("leaseDurationSeconds") or LEASE_SECONDS
        return self._seen_at + float(duration) - self._clock()

    def _pause(self) -> float:
        """Return the seconds until the next attempt: at the lease's end, if that is earlier."""
        end = self._ends_in()
        return min(RETRY_SECONDS, end) if end > 0 else RETRY_SECONDS

    async def _put(self, holder: str, seconds: float) -> None:
        """Write the lease. Raises KubeError 409 if it has changed since it was read."""
        old = self._lease.get("spec") or {}
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        same = old.get("holderIdentity") == holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(seconds),
            "acquireTime": old.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (holder != "" and not same),
        }
        self._lease = await self._kube.put_lease({**self._lease, "spec": spec}, REQUEST_SECONDS)
        self._seen_at, self.holder = self._clock(), holder


def _new_lease() -> Json:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE_NAME, "namespace": "kube-system"},
    }


def _version(lease: Json) -> str:
    return str(lease["metadata"].get("resourceVersion", ""))
