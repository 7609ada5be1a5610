"""The daemon, as the switch starts and verifies it before a kubelet uses it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from noderuntime import config
from noderuntime.agent import desired, layout, probe
from noderuntime.agent.switch.context import Context
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError, ToolError
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient

_log = log.get(__name__)

_REVISION = "NODERUNTIME_REVISION"
_HEAD = "# Written by noderuntime's switch: the previous runtime of this node.\n"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying the daemon through its socket."""

    version: str
    handlers: tuple[str, ...]
    broken: tuple[probe.Finding, ...]


def write_upstream(context: Context, upstream: Path) -> bool:
    """Write the daemon's drop-in with its upstream; return whether it was changed."""
    socket = desired.to_toml(str(upstream))
    text = f"{_HEAD}[upstream]\nsocket = {socket}\n\n[images]\ncontainerd_socket = {socket}\n"
    return files.write(context.layout.upstream_config, text.encode())


async def ensure_running(context: Context, *, changed: bool) -> None:
    """Ensure that the daemon runs with the files on disk; ``changed`` says that it must read them again.

    A daemon that systemd is restarting is left to systemd, which counts its starts.
    """
    config.load(context.layout.config)
    await context.systemd.enable(layout.SERVICE, layout.SWITCH, layout.RESUME)
    if not changed and await _is_up_to_date(context):
        return
    _log.info("restarting the daemon")
    await start(context)


async def start(context: Context, *, seconds: float = 120) -> None:
    """Restart the daemon. FailedPrecondition with its last log line if it is not ready in time."""
    began = time.time()
    try:
        async with asyncio.timeout(seconds * context.second):
            await context.systemd.restart(layout.SERVICE)
    except TimeoutError:
        problem = f"was not ready {seconds:g} s after its start"
    except ToolError:
        problem = "does not start"
    else:
        return
    raise FailedPrecondition(f"{layout.SERVICE} {problem}: {await last_log_line(context, since=began)}")


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
    return Verification(version, tuple(finding.handler for finding in findings), broken)


async def running(context: Context) -> frozenset[str]:
    """Return the IDs of the daemon's own sandboxes and containers that run."""
    async with CriClient(context.layout.socket) as client:
        sandboxes = [one.id for one in await client.sandboxes() if one.state == cri.SANDBOX_READY]
        containers = [one.id for one in await client.containers() if one.state == cri.CONTAINER_RUNNING]
    found = {*sandboxes, *containers}
    if upstream := config.load(context.layout.config).upstream:
        async with CriClient(context.layout.at(upstream.socket)) as client:
            found -= {one.id for one in await client.sandboxes()}
            found -= {one.id for one in await client.containers()}
    return frozenset(found)


async def _is_up_to_date(context: Context) -> bool:
    """Return whether the revision in the running daemon's environment is that of its unit on disk."""
    shown = await context.systemd.show(layout.SERVICE, "ActiveState", "MainPID")
    if shown["ActiveState"] != "active":
        return shown["ActiveState"] == "activating"
    environment = files.read(context.layout.proc / shown["MainPID"] / "environ") or b""
    unit = files.read(context.layout.units / layout.SERVICE) or b""
    running = [part for part in environment.split(b"\0") if part.startswith(f"{_REVISION}=".encode())]
    return len(running) == 1 and b"Environment=" + running[0] + b"\n" in unit


async def last_log_line(context: Context, *, since: float) -> str:
    """Return the last line that the daemon itself logged since then, preferably an error."""
    argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", "50", f"--since=@{int(since)}"]
    try:
        await context.host.run(["journalctl", "--sync"], timeout=5)
        done = await context.host.run([*argv, f"_SYSTEMD_UNIT={layout.SERVICE}"], timeout=10)
        lines = done.stdout.decode(errors="replace").splitlines()
    except NoderuntimeError:
        lines = []
    errors = [line for line in lines if "level=error" in line or line.startswith("noderuntime:")]
    return (errors or lines or [f"see journalctl -u {layout.SERVICE}"])[-1].strip()[:300]
