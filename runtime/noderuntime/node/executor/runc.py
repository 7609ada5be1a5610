"""The ``runc`` handler: an OCI runtime whose files are used instead of calls, which take longer.

The first process and the cgroup of a container are read from runc's ``state.json``. A created container is
started through the fifo at which it waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import DataLoss
from noderuntime.node.executor.command import TIMEOUT
from noderuntime.node.executor.oci import ContainerState, OciExecutor
from noderuntime.node.host.base import ProcessRef
from noderuntime.node.host.cgroup import path_in_hierarchy


class RuncExecutor(OciExecutor):
    """See :class:`noderuntime.node.executor.base.Executor`."""

    _directory = "runc"

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        """Start a created container, whose first process waits for a reader of its fifo.

        If it does not, run ``runc start``, which reports the reason.
        """
        state, fifo = await self._state(container_id), self._root / container_id / "exec.fifo"
        init = state.init if state else None
        if init is not None and await self._host.read_fifo(fifo, init, timeout=TIMEOUT):
            fifo.unlink(missing_ok=True)
        else:
            await super().start(container_id, sandbox_id, is_root=is_root)

    async def _state(self, container_id: str) -> ContainerState | None:
        """Return the state of a container, whose first process can have ended. DataLoss if it is damaged."""
        file = self._root / container_id / "state.json"
        try:
            state = json.loads(await FILES.run(file.read_bytes))
            pid = int(state.get("init_process_pid") or 0)
            return (
                ContainerState(ProcessRef(pid, int(state["init_process_start"])), _cgroup(state))
                if pid
                else None
            )
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataLoss(f"runc's state of {container_id} is damaged") from error


def _cgroup(state: Mapping[str, Any]) -> str:
    paths: Mapping[str, str] = state.get("cgroup_paths") or {}
    return path_in_hierarchy(paths.get("") or paths.get("memory") or next(iter(paths.values()), ""))
