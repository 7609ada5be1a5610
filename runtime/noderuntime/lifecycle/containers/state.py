"""The state of a container, derived from what has happened to it.

                    ┌─ create or start failed (128) ───┐
    CREATED ── start ──► RUNNING ── its process ends ──┴─► EXITED ── remove
       └────────────── killed before it ran ───────────────►┘

reason      Completed   exit code 0
            Error       any other exit code; 128 and the number of the signal that ended it
            OOMKilled   the kernel killed it for lack of memory
            StartError  it never ran; exit code 128. A failed create of the runtime is reported by the start
            Unknown     its exit code was lost (the monitor was killed, the node went down); exit code 255
"""

from __future__ import annotations

from noderuntime.core.errors import FailedPrecondition
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Container

START_ERROR_CODE = 128
LOST_CODE = 255


def state_of(container: Container) -> api_pb2.ContainerState:
    """Derive the CRI state."""
    if container.finished_at:
        return api_pb2.CONTAINER_EXITED
    return api_pb2.CONTAINER_RUNNING if container.started_at else api_pb2.CONTAINER_CREATED


def must_run(container: Container) -> None:
    """Raise FailedPrecondition unless the container runs."""
    if not container.running:
        raise FailedPrecondition(f"container {container.id} is not running")


def reason_of(container: Container) -> str:
    """Return CRI's reason for its end; empty if it has not ended."""
    if not container.finished_at:
        return ""
    if container.start_error:
        return "StartError"
    if container.oom_killed:
        return "OOMKilled"
    if container.lost:
        return "Unknown"
    return "Error" if container.exit_code else "Completed"
