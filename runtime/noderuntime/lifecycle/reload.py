"""SIGHUP: the configuration is read anew, and what can change in a running daemon does.

    live            log.level; images: where registries are described, credentials, search, pinned;
                    handlers: added, changed, removed when no pod uses them
    at a restart    everything else, which the log names

All or nothing: a file that is not valid, or takes away a handler that pods use, changes
nothing, and one line of the log says why. Handlers are taken by verbs when they need them,
so a changed path counts from the next call on, for running pods too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noderuntime import config
from noderuntime.config import Config
from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.used_handlers import remember
from noderuntime.node.executor.handlers import executors

_log = log.get(__name__)

_LIVE = ("handlers", "log")
"""Tables."""
_LIVE_OF_IMAGES = ("certs_dirs", "credentials", "search", "pinned")


async def reload_on(hangup: asyncio.Event, parts: Parts, path: Path) -> None:
    """Reload whenever the event is set. Runs until cancelled."""
    while True:
        await hangup.wait()
        hangup.clear()
        applied = False
        try:
            reload(parts, await FILES.run(config.load, path))
            await remember(parts.config, parts.ledger)
            applied = True
        except NoderuntimeError as error:
            _log.error("the configuration stays as it is", error=error)
        except Exception:  # pods go on, whatever it was
            _log.exception("the configuration stays as it is, for an unforeseen reason")
        parts.metrics.reloaded(applied=applied)


def reload(parts: Parts, wanted: Config) -> None:
    """Put what can change live into force; FailedPrecondition or InvalidArgument leave everything as it is.

    Awaits nothing: no call sees half of it.
    """
    _check_handlers(parts, wanted)
    before = parts.config
    images = before.images.model_copy(update={key: getattr(wanted.images, key) for key in _LIVE_OF_IMAGES})
    live = {table: getattr(wanted, table) for table in _LIVE}
    in_force = before.model_copy(update={**live, "images": images})
    parts.configure_images(images)
    made = executors(in_force, parts.host, systemd_cgroup=parts.cgroup_driver == "systemd")
    kept = {
        name: parts.executors[name]
        for name, handler in in_force.handlers.items()
        if before.handlers.get(name) == handler
    }
    parts.executors.clear()
    parts.executors.update({**made, **kept})
    parts.config = in_force
    log.set_level(in_force.log.level)
    _tell(before, wanted)


def _check_handlers(parts: Parts, wanted: Config) -> None:
    """Refuse to take a handler from under its pods, or to make another kind of it."""
    used = {sandbox.handler for sandbox in parts.ledger.sandboxes}
    for name, handler in parts.config.handlers.items():
        if name not in used:
            continue
        if name not in wanted.handlers:
            raise FailedPrecondition(f"handler {name} cannot be removed: pods use it; delete them first")
        if wanted.handlers[name].type != handler.type:
            raise FailedPrecondition(f"handler {name} cannot change its type: pods use it; delete them first")


def _tell(before: Config, wanted: Config) -> None:
    old, new = before.handlers, wanted.handlers
    _log.info(
        "configuration reloaded",
        log_level=wanted.log.level,
        added=",".join(name for name in new if name not in old),
        changed=",".join(name for name in new if name in old and new[name] != old[name]),
        removed=",".join(name for name in old if name not in new),
    )
    waiting = [key for key in _changes(before.model_dump(), wanted.model_dump()) if not _is_live(key)]
    if waiting:
        _log.warning("some changes of the configuration need a restart", keys=",".join(waiting))


def _is_live(key: str) -> bool:
    table, _, rest = key.partition(".")
    return table in _LIVE or (table == "images" and rest in _LIVE_OF_IMAGES)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Name the keys that differ, as ``table.key``; a table that came or went as a whole by its name."""
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{key}.{below}" for below in _changes(old, new))
        elif old != new:
            yield key
