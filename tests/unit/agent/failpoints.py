"""The steps of the switch's transactions, its death before each of them, and what must be true then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from fakenode import FakeNode

from noderuntime.agent import layout
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch import release, transaction, uninstall, upgrade_steps
from noderuntime.agent.switch.context import Context
from noderuntime.agent.switch.revert import revert
from noderuntime.agent.switch.run import apply, resume
from noderuntime.core.errors import NoderuntimeError, ResourceExhausted

ONE, TWO = "d" * 16, "e" * 16

UPGRADE = [step.__name__ for step in upgrade_steps.UPGRADE]
ROLLBACK = [step.__name__ for step in upgrade_steps.ROLLBACK]
STARTED = UPGRADE.index("start")
SWITCH = [step.__name__ for step in transaction.SWITCH_STEPS]
REVERT = [step.__name__ for step in transaction.REVERT_STEPS]
UNINSTALL = [step.__name__ for step in uninstall.STEPS]
_WRITES = 1
"""The one file of the kubelet that a step writes or restores is a step of its own."""


def places(*lists: list[str], writes: int = 0) -> range:
    """Return the places of the steps of these lists, which a transaction takes one after the other."""
    return range(sum(len(steps) for steps in lists) + writes * _WRITES)


class Killed(BaseException):
    """The process that ran a transaction is gone."""


def killed_before(node: FakeNode, place: int) -> tuple[Context, list[str]]:
    """Return a context in which the process dies before a step, and the steps that it began."""
    begun: list[str] = []

    def on_step(name: str) -> None:
        begun.append(name)
        if len(begun) == place + 1:
            raise Killed

    return replace(node.context, on_step=on_step), begun


def full_disk_at(node: FakeNode, *steps: str) -> Context:
    """Return a context in which the disk is full when these steps begin."""

    def on_step(name: str) -> None:
        if name in steps:
            raise ResourceExhausted("write a file: the disk is full")

    return replace(node.context, on_step=on_step)


async def boot(node: FakeNode) -> None:
    """Start what is enabled, as systemd does: the daemon and the kubelet, then the switch's units."""
    await node.host.reboot()
    with suppress(NoderuntimeError):
        await resume(node.context)
    await apply_again(node)


async def expire(node: FakeNode) -> None:
    """Run what the timer and a killed switch start."""
    await revert(node.context, expired=True)


async def apply_again(node: FakeNode) -> None:
    """Run the switch as the agent does, which reports a failure and tries again later."""
    with suppress(NoderuntimeError):
        await apply(node.context)


WAYS: dict[str, Callable[[FakeNode], Awaitable[None]]] = {"boot": boot, "timer": expire, "again": apply_again}
"""What comes after the death of a switch."""


async def check_serves(node: FakeNode, digest: str) -> None:
    """Check that all traces of a transaction are gone, and that one release serves the kubelet, whole."""
    known = release.load(node.layout)
    assert known.serving
    assert known.serving.digest == node.host.version == node.layout.proven.resolve().name == digest
    assert release.is_installed(node.layout, known.serving)
    assert f"# of version {digest}" in (node.layout.units / layout.SWITCH).read_text()
    assert not node.layout.upgrade.exists()
    assert layout.REVERT_TIMER not in node.host.active
    assert layout.SERVICE in node.host.active
    async with asyncio.timeout(10):  # the kubelet connects again by itself
        while not node.kubelet_is_switched:
            await asyncio.sleep(0.01)


async def check_one_runtime(node: FakeNode, before: dict[str, str]) -> None:
    """Check that the kubelet runs, on noderuntime with a journal, or on its upstream with its old files."""
    assert node.host.pid
    journal = records.load_journal(node.layout.journal)
    assert node.kubelet_is_switched is (journal is not None)
    if journal is None:
        assert node.files() == before
    else:
        assert journal.phase == "Switched"
