"""ReopenContainerLog: the monitor opens a new log file after the kubelet has rotated the old one."""

from __future__ import annotations

from pathlib import Path

from noderuntime.core.errors import FailedPrecondition
from noderuntime.lifecycle.containers.state import must_run
from noderuntime.lifecycle.parts import Parts


async def reopen_container_log(parts: Parts, container_id: str) -> None:
    """Have the monitor open a new log file; return when it exists (CRI ReopenContainerLog).

    FailedPrecondition if the container does not run or has no log.
    """
    container = parts.ledger.containers.get(container_id)
    must_run(container)
    if not container.log_path:
        raise FailedPrecondition(f"container {container.id} has no log")
    await parts.monitor.reopen_log(parts.paths.container(container.id).bundle, Path(container.log_path))
