"""Checks of the programs that the configuration names: each is run and must report its version."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from noderuntime.config import Config
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import NoderuntimeError
from noderuntime.doctor.finding import Finding, fail, ok
from noderuntime.node.executor.base import Executor, Traits
from noderuntime.node.executor.handlers import executors
from noderuntime.node.executor.probes import probe
from noderuntime.node.host.base import Host
from noderuntime.node.host.messages import one_line

_SECONDS = 10.0


async def tools(config: Config, host: Host) -> list[Finding]:
    """Check conmon, busybox, the handlers' runtimes and the pause container."""
    handlers = executors(config, host, systemd_cgroup=False)
    return list(
        await asyncio.gather(
            _program(host, "conmon", [str(config.tools.conmon), "--version"], "tools.conmon"),
            _program(host, "busybox", [str(config.tools.busybox), "echo", "runs"], "tools.busybox"),
            FILES.run(_pause, config.tools.pause_rootfs, [one.traits for one in handlers.values()]),
            *(_handler(executor, config.handlers[name].path) for name, executor in handlers.items()),
        )
    )


async def _program(host: Host, name: str, argv: Sequence[str], key: str) -> Finding:
    advice = f"install {name}, or set {key} to its path"
    try:
        done = await host.run(argv, timeout=_SECONDS)
    except NoderuntimeError as error:
        return fail(name, str(error), advice)
    if done.returncode:
        output = one_line((done.stderr or done.stdout).decode(errors="replace"))
        return fail(name, f"{argv[0]} exited with status {done.returncode}: {output}", advice)
    first, _, _ = done.stdout.decode(errors="replace").partition("\n")
    return ok(name, f"{argv[0]}: {first}")


def handler_check(name: str) -> str:
    """Return the name of the check of a handler's program."""
    return f"handler {name}"


async def _handler(executor: Executor, path: Path) -> Finding:
    check = handler_check(executor.name)
    try:
        found = await probe(executor)
    except NoderuntimeError as error:
        return fail(check, str(error), f"correct handlers.{executor.name}.path, or remove the handler")
    return ok(check, f"{path}: {found.version}")


def _pause(rootfs: Path, handlers: Sequence[Traits]) -> Finding:
    """Check the programs of sandboxes' root containers.

    A pod with its own kernel has its own loopback: port-forward connects to it with busybox.
    """
    names = ["pause", "busybox"] if any(handler.own_kernel for handler in handlers) else ["pause"]
    programs = [rootfs / name for name in names]
    missing = [str(program) for program in programs if not os.access(program, os.X_OK)]
    if not missing:
        return ok("pause container", str(rootfs))
    return fail(
        "pause container",
        f"missing or not executable: {', '.join(missing)}",
        "set tools.pause_rootfs to a directory with an init named pause, such as catatonit,"
        " and, for gVisor, a static busybox",
    )
