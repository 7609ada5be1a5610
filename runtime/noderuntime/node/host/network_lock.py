"""CRIU's network lock: rules in a network namespace that drop all packets during a dump.

CRIU removes the rules itself, unless it is killed: then the pod has no network. They are recognised by their
chain, which has the name ``CRIU``, and exist for iptables only. A CRIU built for nftables leaves a table
``inet CRIU-…``, which is not removed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from noderuntime.core import log
from noderuntime.core.errors import ToolError
from noderuntime.node.host.base import Completed
from noderuntime.node.host.messages import one_line

_log = log.get(__name__)

_SECONDS = 10.0
_WAIT = "--wait=5"
"""Without it, iptables fails at once while another process holds its lock."""
_IPV6 = "/proc/sys/net/ipv6"
_CHAIN = b":CRIU "
_JUMPS = (b"-A INPUT -j CRIU", b"-A OUTPUT -j CRIU")


class Run(Protocol):
    """A function that runs a program to its end."""

    async def __call__(self, argv: list[str], *, timeout: float, stdin: bytes = b"") -> Completed:
        """Run the program and return its outcome."""


async def remove_network_lock(run: Run, pin: Path) -> None:
    """Remove the lock from a pinned network namespace. Does nothing without a lock or without iptables.

    ToolError if iptables fails, DeadlineExceeded if it hangs. As CRIU does, it uses no ip6tables if the
    kernel has no IPv6.
    """
    for program in _programs():
        await _remove(run, pin, program)


def _programs() -> list[str]:
    candidates = ("iptables", "ip6tables") if os.path.exists(_IPV6) else ("iptables",)
    return [program for program in candidates if shutil.which(f"{program}-restore") is not None]


async def _remove(run: Run, pin: Path, program: str) -> None:
    enter = ["nsenter", f"--net={pin}", "--"]
    saved = await run([*enter, f"{program}-save", "-t", "filter"], timeout=_SECONDS)
    _check(f"{program}-save", "look for CRIU's network lock", saved)
    lines = saved.stdout.splitlines()
    if not any(line.startswith(_CHAIN) for line in lines):
        return
    jumps = [line.replace(b"-A", b"-D", 1) for line in lines if line in _JUMPS]
    rules = b"\n".join([b"*filter", *jumps, b"-F CRIU", b"-X CRIU", b"COMMIT", b""])
    done = await run([*enter, f"{program}-restore", "--noflush", _WAIT], timeout=_SECONDS, stdin=rules)
    _check(f"{program}-restore", "remove CRIU's network lock", done)
    _log.warning("network lock of an interrupted checkpoint removed", program=program, namespace=pin)


def _check(program: str, action: str, done: Completed) -> None:
    if done.returncode:
        raise ToolError(program, action, done.returncode, one_line(done.stderr.decode(errors="replace")))
