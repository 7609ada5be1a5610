"""What is told to whoever counts; by itself nobody does.

Every label has few values: the calls of the schema, gRPC's codes, the configured
handlers, the phases named here, the classes of errors.py. Nothing is per pod.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from noderuntime.lifecycle.ledger.ledger import Ledger

Metadata = Iterable[tuple[str, str | bytes]] | None
"""What a gRPC caller sent along."""

OTHER_METHOD = "other"
"""Stands for every call that the schema does not know."""


class Pulls(Protocol):
    """What all pulls since the start came to."""

    succeeded: int
    received: int
    """Bytes."""
    seconds: float
    failed: Tally[str]
    """By the kind of the error."""


class Metrics:
    """The metrics of one daemon; this one is for a daemon that nobody asks for any."""

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a CRI call: a method of the schema or OTHER_METHOD, and the name of a gRPC code."""

    def call(self, path: str, metadata: Metadata) -> AbstractContextManager[None]:
        """Trace a CRI call: its gRPC path, and what the caller sent along."""
        return nullcontext()

    def phase(self, phase: str, handler: str) -> AbstractContextManager[None]:
        """Measure a step in the life of a pod of a configured handler; count it if it fails."""
        return nullcontext()

    def upstream_failed(self, code: str) -> None:
        """Count an error of the upstream, by the name of its gRPC code."""

    def reloaded(self, *, applied: bool) -> None:
        """Count a reload of the configuration."""

    def watch(self, ledger: Ledger) -> None:
        """Tell from now on how many sandboxes and containers the ledger has."""

    def watch_pulls(self, pulls: Pulls) -> None:
        """Tell from now on what pulls into a store of our own came to."""

    async def close(self) -> None:
        """Export what is left."""

    def text(self) -> bytes:
        """Write everything in Prometheus' text format 0.0.4; some 15 ms of work, in any thread."""
        return b""
