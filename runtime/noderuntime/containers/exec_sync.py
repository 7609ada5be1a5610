"""ExecSync: run a command in a container and wait for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from noderuntime.cri.v1 import api_pb2
from noderuntime.errors import FailedPrecondition, InvalidArgument
from noderuntime.parts import Parts
from noderuntime.spec import builder


async def exec_sync(
    parts: Parts, container_id: str, command: Sequence[str], timeout: float
) -> api_pb2.ExecSyncResponse:
    """Run a command to its end (CRI ExecSync); ``timeout`` in seconds, 0 waits forever.

    At the timeout, and when the call is cancelled, the command is killed. Each stream is cut at 16 MiB.
    """
    container = parts.ledger.containers.get(container_id)
    if not container.running:
        raise FailedPrecondition(f"container {container.id} is not running")
    if not command:
        raise InvalidArgument("there is no command to run")
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    bundle = parts.paths.container(container.id)
    spec = json.loads(await asyncio.to_thread(bundle.spec.read_bytes))
    process = builder.exec_process(spec, command)
    result = await parts.executor(sandbox.handler).exec_sync(
        container.id, sandbox.id, process, timeout=timeout if timeout > 0 else None
    )
    return api_pb2.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)
