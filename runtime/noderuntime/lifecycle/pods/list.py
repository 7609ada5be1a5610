"""ListPodSandbox, from memory."""

from __future__ import annotations

from collections.abc import Iterable

from noderuntime.core.labels import selects
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.canary import is_hidden
from noderuntime.lifecycle.pods.state import state_of


def list_pod_sandboxes(parts: Parts, wanted: api_pb2.PodSandboxFilter) -> list[api_pb2.PodSandbox]:
    """Return the sandboxes that match the filter (CRI ListPodSandbox).

    The ID in the filter can be a unique prefix. InvalidArgument if it is ambiguous.
    """
    return [_summary(sandbox) for sandbox in select_pod_sandboxes(parts, wanted)]


def select_pod_sandboxes(parts: Parts, wanted: api_pb2.PodSandboxFilter) -> list[Sandbox]:
    """Return the sandboxes that match the filter."""
    return [sandbox for sandbox in _candidates(parts, wanted) if _matches(sandbox, wanted)]


def _candidates(parts: Parts, wanted: api_pb2.PodSandboxFilter) -> Iterable[Sandbox]:
    if not wanted.id:
        return parts.ledger.sandboxes
    found = parts.ledger.sandboxes.find(wanted.id)
    return [] if found is None else [found]


def _matches(sandbox: Sandbox, wanted: api_pb2.PodSandboxFilter) -> bool:
    if not sandbox.visible or is_hidden(sandbox.config.labels, wanted.label_selector):
        return False
    if wanted.HasField("state") and wanted.state.state != state_of(sandbox):
        return False
    return selects(wanted.label_selector, sandbox.config.labels)


def _summary(sandbox: Sandbox) -> api_pb2.PodSandbox:
    return api_pb2.PodSandbox(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=state_of(sandbox),
        created_at=sandbox.created_at,
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.handler,
    )
