"""Log context of calls: all log lines of a call name its pod or container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.server.dispatch import Verb
from noderuntime.lifecycle import log_context as subject
from noderuntime.lifecycle.ledger.ledger import Ledger


def with_subjects(verbs: Mapping[str, Verb], ledger: Ledger) -> dict[str, Verb]:
    """Return the verbs, wrapped. Each call has its own task, so the log context ends with the call."""
    return {name: _with_subject(verb, ledger) for name, verb in verbs.items()}


def _with_subject(verb: Verb, ledger: Ledger) -> Verb:
    async def run(request: Any) -> Message:
        _bind(request, ledger)
        return await verb(request)

    return run


def _bind(request: Any, ledger: Ledger) -> None:
    if isinstance(request, api_pb2.RunPodSandboxRequest):
        subject.bind_pod(request.config.metadata)
    elif (sandbox_id := getattr(request, "pod_sandbox_id", "")) and (
        sandbox := ledger.sandboxes.find(sandbox_id)
    ):
        if isinstance(request, api_pb2.CreateContainerRequest):
            subject.bind_new_container(sandbox, request.config.metadata)
        else:
            subject.bind_sandbox(sandbox)
    elif (container_id := getattr(request, "container_id", "")) and (
        container := ledger.containers.find(container_id)
    ):
        subject.bind_container(ledger, container)
