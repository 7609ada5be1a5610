"""The timer that rolls back what is incomplete at its deadline, if everything else was killed."""

from __future__ import annotations

from noderuntime.agent import layout, units
from noderuntime.agent.switch.context import Context
from noderuntime.core import durable_files as files


async def arm(context: Context, seconds: int) -> None:
    """Start the timer for a change that ends by itself within this many seconds."""
    if files.write(context.layout.units / layout.REVERT_TIMER, units.timer(seconds).encode()):
        await context.systemd.reload()
    await context.systemd.restart(layout.REVERT_TIMER)


async def disarm(context: Context) -> None:
    """Stop the timer."""
    await context.systemd.stop(layout.REVERT_TIMER)
