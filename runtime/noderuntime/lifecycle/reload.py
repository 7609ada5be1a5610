"""SIGHUP: read the configuration again and apply the settings that can change in a running daemon.

    live            log.level; images: directories of registries, credentials, search, pinned, limits;
                    handlers: added, changed, and removed if no pod uses them
    at a restart    everything else, which the log names

A reload applies completely or not at all. If the files are invalid, a handler that pods use would be
removed, or the ledger cannot be written, nothing changes and one line of the log says why. Verbs look up
their handler when they need it, so a changed path takes effect from the next call on, also for running pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime import config
from noderuntime.config import Config
from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.used_handlers import remember
from noderuntime.node.executor.base import Executor
from noderuntime.node.executor.handlers import executors

_log = log.get(__name__)

_LIVE = ("handlers", "log")
"""Tables."""
_LIVE_OF_IMAGES = (
    *("certs_dirs", "credentials", "http_redirects", "search"),
    *("pinned", "max_image_size", "min_free_disk"),
)


async def reload_on(hangup: asyncio.Event, parts: Parts, path: Path) -> None:
    """Reload whenever the event is set. Runs until cancelled."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            await reload(parts, await FILES.run(config.load, path))
            applied = True
        except NoderuntimeError as error:
            _log.error("the configuration was not reloaded", error=error)
            applied = False
        except Exception:  # pods run on
            _log.exception("the configuration was not reloaded: unexpected error")
            applied = False
        parts.metrics.reloaded(applied=applied)


async def reload(parts: Parts, wanted: Config) -> None:
    """Apply the live settings of a configuration. After any error, nothing has changed.

    FailedPrecondition if pods use a handler that would be removed or get another type.
    """
    before, in_force = parts.config, _in_force(parts.config, wanted)
    waiting = [key for key in _changes(before.model_dump(), wanted.model_dump()) if not _is_live(key)]
    _check_handlers(parts, in_force)
    made = executors(in_force, parts.host, systemd_cgroup=parts.cgroup_driver == "systemd")
    await remember(in_force, parts.ledger)  # before pods use them
    try:
        _check_handlers(parts, in_force)  # a pod may have begun meanwhile
        parts.configure_images(in_force.images)
    except Exception:
        await remember(before, parts.ledger)
        raise
    _switch(parts, in_force, made)
    _report(before, in_force, waiting)


def _in_force(before: Config, wanted: Config) -> Config:
    """Return the configuration with the live settings of another."""
    images = before.images.model_copy(update={key: getattr(wanted.images, key) for key in _LIVE_OF_IMAGES})
    live = {table: getattr(wanted, table) for table in _LIVE}
    return before.model_copy(update={**live, "images": images})


def _switch(parts: Parts, in_force: Config, made: Mapping[str, Executor]) -> None:
    """Put a configuration into force. Cannot fail, and awaits nothing: no call sees half of it."""
    kept = {
        name: parts.executors[name]
        for name, handler in in_force.handlers.items()
        if parts.config.handlers.get(name) == handler
    }
    parts.executors.clear()
    parts.executors.update({**made, **kept})
    parts.config = in_force
    log.set_level(in_force.log.level)


def _check_handlers(parts: Parts, wanted: Config) -> None:
    """Refuse to remove a handler that pods use, or to change its type."""
    used = {sandbox.handler for sandbox in parts.ledger.sandboxes}
    for name, handler in parts.config.handlers.items():
        if name not in used:
            continue
        if name not in wanted.handlers:
            raise FailedPrecondition(f"handler {name} cannot be removed: pods use it; delete them first")
        if wanted.handlers[name].type != handler.type:
            raise FailedPrecondition(f"handler {name} cannot change its type: pods use it; delete them first")


def _report(before: Config, in_force: Config, waiting: Sequence[str]) -> None:
    old, new = before.handlers, in_force.handlers
    _log.info(
        "configuration reloaded",
        log_level=in_force.log.level,
        added=",".join(name for name in new if name not in old),
        changed=",".join(name for name in new if name in old and new[name] != old[name]),
        removed=",".join(name for name in old if name not in new),
    )
    if waiting:
        _log.warning("some changes of the configuration need a restart", keys=",".join(waiting))


def _is_live(key: str) -> bool:
    table, _, rest = key.partition(".")
    return table in _LIVE or (table == "images" and rest in _LIVE_OF_IMAGES)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Yield the keys that differ, as ``table.key``; the table's name if only one side has the table."""
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{key}.{below}" for below in _changes(old, new))
        elif old != new:
            yield key
