"""systemd's watchdog: the daemon reports that it is alive while its event loop and all lanes make progress.

A daemon that does not report within ``WatchdogSec`` is killed with SIGABRT, which prints the stacks of all
threads, and started again; pods do not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from noderuntime.core import blocking, log
from noderuntime.node.host.sdnotify import notify, watchdog_seconds

_log = log.get(__name__)


async def report_alive(
    on_stall: Callable[[], None], period: float = watchdog_seconds(), send: Callable[[str], None] = notify
) -> None:
    """Send ``WATCHDOG=1`` three times a period (seconds) until cancelled; 0 is no watchdog.

    A lane is stalled when calls wait and none was taken up for a third of the period. Nothing is sent while
    one is; ``on_stall`` is called when that begins.
    """
    if not period:
        await asyncio.Event().wait()
    was_stalled = False
    while True:
        stalled = [name for name, load in blocking.lanes().items() if load.stalled > period / 3]
        if not stalled:
            send("WATCHDOG=1")
        elif not was_stalled:
            _log.error("blocking calls make no progress", lanes=",".join(stalled))
            on_stall()
        was_stalled = bool(stalled)
        await asyncio.sleep(period / 3)
