"""ExecSync: run a command in a container and wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.build import check_command, exec_process
from noderuntime.lifecycle.containers.state import must_run
from noderuntime.lifecycle.parts import Parts


async def exec_sync(
    parts: Parts, container_id: str, command: Sequence[str], timeout: float
) -> api_pb2.ExecSyncResponse:
    """Run a command and return its output and exit code (CRI ExecSync).

    The command is killed after ``timeout`` seconds (0 waits forever), or if the call is cancelled. Each
    output stream is cut at 16 MiB.
    """
    container = parts.ledger.containers.get(container_id)
    must_run(container)
    check_command(command)
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    process = await exec_process(parts, container, command)
    result = await parts.executor(sandbox.handler).exec_sync(
        container.id, sandbox.id, process, timeout=timeout if timeout > 0 else None
    )
    return api_pb2.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)
