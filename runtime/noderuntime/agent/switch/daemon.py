"""The daemon, as the switch starts and verifies it before a kubelet uses it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from noderuntime import config
from noderuntime.agent import layout, probe
from noderuntime.agent.switch.context import Context
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError, ToolError
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient
from noderuntime.lifecycle.pods.canary import LABEL

_log = log.get(__name__)

_REVISION = "NODERUNTIME_REVISION"
_HEAD = "# Written by noderuntime's switch: the previous runtime of this node.\n"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying the daemon through its socket."""

    version: str
    broken: tuple[probe.Finding, ...]


async def check_upstream(socket: Path) -> None:
    """Check that the upstream runtime responds and is supported. Raises FailedPrecondition otherwise."""
    async with CriClient(socket) as client:
        name = (await client.version()).runtime_name
    if name != "containerd":
        raise FailedPrecondition(
            f"{socket} is {name or 'a runtime without a name'}: mode Delegate requires containerd, whose"
            " image store it uses; set kubelet.mode Manual"
        )


async def ensure_running(context: Context, upstream: Path) -> bool:
    """Ensure that the daemon runs with the files on disk; return whether it was (re)started."""
    place = context.layout
    socket = json.dumps(str(upstream))
    text = f"{_HEAD}[upstream]\nsocket = {socket}\n\n[images]\ncontainerd_socket = {socket}\n"
    changed = files.write(place.upstream_config, text.encode())
    config.load(place.config)
    await context.systemd.enable(layout.SERVICE, layout.SWITCH)
    if not changed and await _is_up_to_date(context):
        return False
    _log.info("restarting the daemon", upstream=upstream)
    try:
        await context.systemd.restart(layout.SERVICE)
    except ToolError as error:
        raise FailedPrecondition(
            f"{layout.SERVICE} does not start: {await _last_log_line(context)}"
        ) from error
    return True


async def verify(context: Context) -> Verification:
    """Call Version and Status, and run a canary for each handler.

    A broken handler is reported and is no failure as long as another handler works.
    Raises FailedPrecondition if RuntimeReady is false or no handler works.
    """
    place = context.layout
    async with CriClient(place.socket) as client:
        version = (await client.version()).runtime_version
        conditions = (await client.status()).status.conditions
    for condition in conditions:
        if condition.type == "RuntimeReady" and not condition.status:
            raise FailedPrecondition(f"noderuntime is not ready: {condition.reason} {condition.message}")
    findings = await probe.probe(place.socket, config.load(place.config).handlers)
    broken = tuple(finding for finding in findings if not finding.ready)
    for finding in broken:
        _log.warning("the canary of a handler failed", handler=finding.handler, message=finding.message)
    if broken and len(broken) == len(findings):
        messages = "; ".join(f"{finding.handler}: {finding.message}" for finding in broken)
        raise FailedPrecondition(f"no handler works: {messages}")
    return Verification(version, broken)


async def own_sandboxes(context: Context, upstream: Path | None) -> list[cri.PodSandbox]:
    """Return the daemon's own sandboxes: those that it lists and its upstream does not list."""
    async with CriClient(context.layout.socket) as client:
        listed = await client.sandboxes()
        canaries = await client.sandboxes({LABEL: "true"})
    upstream_ids: set[str] = set()
    if upstream is not None:
        async with CriClient(upstream) as client:
            upstream_ids = {sandbox.id for sandbox in await client.sandboxes()}
    return [sandbox for sandbox in (*listed, *canaries) if sandbox.id not in upstream_ids]


async def _is_up_to_date(context: Context) -> bool:
    """Return whether the revision in the running daemon's environment is that of its unit on disk."""
    shown = await context.systemd.show(layout.SERVICE, "ActiveState", "MainPID")
    if shown["ActiveState"] != "active":
        return False
    environment = files.read(context.layout.proc / shown["MainPID"] / "environ") or b""
    unit = files.read(context.layout.units / layout.SERVICE) or b""
    running = [part for part in environment.split(b"\0") if part.startswith(f"{_REVISION}=".encode())]
    return len(running) == 1 and b"Environment=" + running[0] + b"\n" in unit


async def _last_log_line(context: Context) -> str:
    """Return the last line that the daemon logged, preferably an error."""
    argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", "20", "-u", layout.SERVICE]
    try:
        lines = (await context.host.run(argv, timeout=10)).stdout.decode(errors="replace").splitlines()
    except NoderuntimeError:
        lines = []
    errors = [line for line in lines if "level=error" in line or line.startswith("noderuntime:")]
    return (errors or lines or [f"see journalctl -u {layout.SERVICE}"])[-1][:300]
