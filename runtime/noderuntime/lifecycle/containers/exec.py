"""Exec: run a command in a container and connect a client to its stdio."""

from __future__ import annotations

from noderuntime.core import log
from noderuntime.core.sessions import Command, Stdio, wanted_streams
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.build import check_command, exec_process
from noderuntime.lifecycle.containers.state import must_run
from noderuntime.lifecycle.containers.stdio_relay import relay
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import shell_status

_log = log.get(__name__)


def exec_session(parts: Parts, request: api_pb2.ExecRequest) -> Command:
    """Check an Exec request and return its session (CRI Exec)."""
    container = parts.ledger.containers.get(request.container_id)
    must_run(container)
    check_command(request.cmd)
    return Command("exec", wanted_streams(request), lambda stdio: _run(parts, request, stdio))


async def _run(parts: Parts, request: api_pb2.ExecRequest, stdio: Stdio) -> int:
    """Run the command and return its exit code. If the client leaves, the command's stdio is closed."""
    container = parts.ledger.containers.get(request.container_id)
    must_run(container)  # it may have ended since the request
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    process = await exec_process(parts, container, request.cmd, tty=request.tty)
    program = await parts.executor(sandbox.handler).exec(
        container.id, sandbox.id, process, stdin=request.stdin
    )
    _log.debug("exec started", container=container.id, tty=request.tty)
    try:
        await relay(program, stdio, stdin=request.stdin)
        return shell_status(await program.wait())  # negative: a signal killed the runtime itself
    finally:
        await program.close()
