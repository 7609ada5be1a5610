"""What the switch reads of a real containerd: the names of its handlers."""

from __future__ import annotations

from realnode.containerd import Containerd

from noderuntime.agent.switch import upstream


async def test_containerd_reports_a_handler_runc(containerd: Containerd) -> None:
    assert "runc" in await upstream.handlers(containerd.socket)
    assert await upstream.shared_handlers(containerd.socket, ["gvisor", "runc"]) == ("runc",)
