"""The state of a sandbox, derived from its record.

(an intent, not visible) ── run ──► SANDBOX_READY ── stop, or its own process ends ──► SANDBOX_NOTREADY
                                                                 ▲
run failed and could not be undone completely ───────────────────┘
"""

from __future__ import annotations

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Sandbox


def state_of(sandbox: Sandbox) -> api_pb2.PodSandboxState:
    """Return the CRI state of a sandbox."""
    return api_pb2.SANDBOX_READY if sandbox.ready else api_pb2.SANDBOX_NOTREADY
