"""Verbs that say first which pod or container they are about, so that every line of theirs tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.server.dispatch import Verb
from noderuntime.lifecycle import log_context as subject
from noderuntime.lifecycle.ledger.ledger import Ledger


def with_subjects(verbs: Mapping[str, Verb], ledger: Ledger) -> dict[str, Verb]:
    """Wrap all verbs. Each call has a task of its own, so what is bound ends with it."""
    return {name: _telling(verb, ledger) for name, verb in verbs.items()}


def _telling(verb: Verb, ledger: Ledger) -> Verb:
    async def telling(request: Any) -> Message:
        _bind(request, ledger)
        return await verb(request)

    return telling


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
