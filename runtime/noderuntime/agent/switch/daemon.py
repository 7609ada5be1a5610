"""The daemon: running as ordered, beside the right upstream, and proven before a kubelet relies on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from noderuntime import config
from noderuntime.agent import durable_files as files
from noderuntime.agent import layout, probe
from noderuntime.agent.switch.context import Context
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError, ToolError
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient
from noderuntime.lifecycle.pods.canary import LABEL

_log = log.get(__name__)

_REVISION = "NODERUNTIME_REVISION"
_HEAD = "# Written by noderuntime's switch: the runtime that this node had before.\n"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen through the socket."""

    version: str
    broken: tuple[probe.Finding, ...]


async def check_upstream(socket: Path) -> None:
    """Make sure that the node's own runtime answers and is one that this version works beside."""
    async with CriClient(socket) as client:
        name = (await client.version()).runtime_name
    if name != "containerd":
        raise FailedPrecondition(
            f"{socket} is {name or 'a runtime without a name'}: mode Delegate needs containerd,"
            " whose image store it uses; use mode Manual"
        )


async def serve(context: Context, upstream: Path) -> bool:
    """Have the daemon run with what is on disk; return whether it was (re)started."""
    place = context.layout
    socket = json.dumps(str(upstream))
    text = f"{_HEAD}[upstream]\nsocket = {socket}\n\n[images]\ncontainerd_socket = {socket}\n"
    changed = files.write(place.upstream_config, text.encode())
    config.load(place.config)
    await context.systemd.enable(layout.SERVICE, layout.SWITCH)
    if not changed and await _runs_as_ordered(context):
        return False
    _log.info("starting the daemon", upstream=upstream)
    try:
        await context.systemd.restart(layout.SERVICE)
    except ToolError as error:
        raise FailedPrecondition(f"{layout.SERVICE} does not start: {await _last_words(context)}") from error
    return True


async def prove(context: Context) -> Proof:
    """Try Version, Status and a canary for each handler.

    A broken handler is reported and stops nothing, as long as another one works.
    Raises FailedPrecondition when the kubelet could not live with this runtime.
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
        _log.warning("handler is broken", handler=finding.handler, trouble=finding.trouble)
    if broken and len(broken) == len(findings):
        words = "; ".join(f"{finding.handler}: {finding.trouble}" for finding in broken)
        raise FailedPrecondition(f"no handler works: {words}")
    return Proof(version, broken)


async def our_sandboxes(context: Context, upstream: Path | None) -> list[cri.PodSandbox]:
    """Return the sandboxes that are the daemon's own: those it lists and its upstream does not."""
    async with CriClient(context.layout.socket) as client:
        listed = await client.sandboxes()
        canaries = await client.sandboxes({LABEL: "true"})
    theirs: set[str] = set()
    if upstream is not None:
        async with CriClient(upstream) as client:
            theirs = {sandbox.id for sandbox in await client.sandboxes()}
    return [sandbox for sandbox in (*listed, *canaries) if sandbox.id not in theirs]


async def _runs_as_ordered(context: Context) -> bool:
    """Compare what the running daemon was started with, by its environment, with its unit on disk."""
    shown = await context.systemd.show(layout.SERVICE, "ActiveState", "MainPID")
    if shown["ActiveState"] != "active":
        return False
    environment = files.read(context.layout.proc / shown["MainPID"] / "environ") or b""
    unit = files.read(context.layout.units / layout.SERVICE) or b""
    running = [part for part in environment.split(b"\0") if part.startswith(f"{_REVISION}=".encode())]
    return len(running) == 1 and b"Environment=" + running[0] + b"\n" in unit


async def _last_words(context: Context) -> str:
    """Return the last line that the daemon logged."""
    argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", "20", "-u", layout.SERVICE]
    try:
        lines = (await context.host.run(argv, timeout=10)).stdout.decode(errors="replace").splitlines()
    except NoderuntimeError:
        lines = []
    said = [line for line in lines if "level=error" in line or line.startswith("noderuntime:")]
    return (said or lines or ["it said nothing"])[-1][:300]
