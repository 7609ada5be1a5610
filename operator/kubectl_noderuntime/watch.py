"""``kubectl noderuntime watch``: show the status live, until interrupted."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

from rich.console import Group
from rich.live import Live

from kubectl_noderuntime import output
from kubectl_noderuntime.changes import Changes
from kubectl_noderuntime.cluster import Cluster
from kubectl_noderuntime.mirror import Mirror
from kubectl_noderuntime.objects import bare
from kubectl_noderuntime.report import RuntimeReport, reports
from kubectl_noderuntime.tree import forest
from noderuntime.cli.text import printable
from noderuntime_operator.api.names import OWNER_LABEL

REDRAW_SECONDS = 0.5
"""The shortest time between two drawings, however fast objects change."""

View = Callable[[Sequence[RuntimeReport], Sequence[str]], None]
"""Shows the reports, and why they are not up to date."""


async def run(cluster: Cluster, args: Namespace) -> int:
    """Show the status and its changes."""
    name = bare(args.name) if args.name else ""
    if name:
        await cluster.get("NodeRuntime", name)  # a wrong name is an error, not an empty view
    mirrors = (
        Mirror(cluster, "NodeRuntime", fields=f"metadata.name={name}" if name else ""),
        Mirror(cluster, "NodeRuntimeInstance", labels=f"{OWNER_LABEL}={name}" if name else ""),
    )
    changed = asyncio.Event()
    try:
        with _screen(args.output) as show:
            async with asyncio.TaskGroup() as group:
                for mirror in mirrors:
                    group.create_task(mirror.follow(changed))
                group.create_task(_draw(mirrors, changed, show))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return 0


async def _draw(mirrors: Sequence[Mirror], changed: asyncio.Event, show: View) -> None:
    """Show every change, at most one per REDRAW_SECONDS, as soon as all objects are known."""
    while True:
        await changed.wait()
        changed.clear()
        if all(mirror.filled for mirror in mirrors):
            runtimes, instances = (mirror.objects.values() for mirror in mirrors)
            show(reports(runtimes, instances), [mirror.problem for mirror in mirrors if mirror.problem])
            await asyncio.sleep(REDRAW_SECONDS)


def _screen(form: str) -> AbstractContextManager[View]:
    """Return how reports are shown: redrawn on a terminal, else as lines."""
    console = output.console()
    if form == "json" or not console.is_terminal:
        return nullcontext(_lines(form))
    return _Screen(Live(console=console, auto_refresh=False))


class _Screen:
    """Redraws trees in place. They stay on the terminal at the end."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def __enter__(self) -> View:
        self._live.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _show(self, found: Sequence[RuntimeReport], problems: Sequence[str]) -> None:
        warnings = [output.styled((problem, "red")) for problem in problems]
        self._live.update(Group(forest(found), *warnings), refresh=True)


def _lines(form: str) -> View:
    """Return a view that prints one line for each change, as text or JSON."""
    changes = Changes()

    def show(found: Sequence[RuntimeReport], problems: Sequence[str]) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name, what, value in changes.since_last(found, problems):
            if form == "json":
                print(
                    output.as_json({"time": now, "object": name, "field": what, "value": value}), flush=True
                )
            else:
                print(printable(f"{now} {name} {what}: {value}"), flush=True)

    return show
