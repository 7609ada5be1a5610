"""The interface of the daemon's metrics, without an implementation.

Every label has few values: the calls of the schema, gRPC's codes, the configured handlers, the phases named
here, the classes of errors.py. No label is per pod.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from noderuntime.lifecycle.ledger.ledger import Ledger

Metadata = Iterable[tuple[str, str | bytes]] | None
"""The metadata of a gRPC call."""

OTHER_METHOD = "other"
"""The label of all calls that the schema does not contain."""


class Pulls(Protocol):
    """The counters of all pulls since the start."""

    succeeded: int
    received: int
    """Bytes."""
    seconds: float
    failed: Tally[str]
    """By the class of the error."""


class Metrics:
    """The metrics of one daemon. This class is for a daemon without metrics: it counts nothing."""

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a CRI call: a method of the schema or OTHER_METHOD, and the name of a gRPC code."""

    def call(self, path: str, metadata: Metadata) -> AbstractContextManager[None]:
        """Trace a CRI call by its gRPC path and metadata."""
        return nullcontext()

    def phase(self, phase: str, handler: str) -> AbstractContextManager[None]:
        """Measure a phase in the lifecycle of a pod of a configured handler; count its failure."""
        return nullcontext()

    def upstream_failed(self, code: str) -> None:
        """Count an error of the upstream, by the name of its gRPC code."""

    def reloaded(self, *, applied: bool) -> None:
        """Count a reload of the configuration."""

    def watch(self, ledger: Ledger) -> None:
        """Report the number of the ledger's sandboxes and containers from now on."""

    def watch_pulls(self, pulls: Pulls) -> None:
        """Report the counters of pulls into the daemon's own store from now on."""

    async def close(self) -> None:
        """Export pending data."""

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4. Takes some 15 ms, in any thread."""
        return b""
