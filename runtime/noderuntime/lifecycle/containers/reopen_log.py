"""ReopenContainerLog: the kubelet has rotated the file, the monitor opens a new one."""

from __future__ import annotations

from pathlib import Path

from noderuntime.core.errors import FailedPrecondition
from noderuntime.lifecycle.containers.state import must_run
from noderuntime.lifecycle.parts import Parts


async def reopen_container_log(parts: Parts, container_id: str) -> None:
    """Return when the new log file is there (CRI ReopenContainerLog).

    Raises FailedPrecondition when the container does not run or keeps no log.
    """
    container = parts.ledger.containers.get(container_id)
    must_run(container)
    if not container.log_path:
        raise FailedPrecondition(f"container {container.id} keeps no log")
    await parts.monitor.reopen_log(parts.paths.container(container.id).bundle, Path(container.log_path))
