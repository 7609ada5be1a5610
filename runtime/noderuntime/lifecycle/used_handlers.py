"""Handlers that pods use although the configuration no longer contains them: only they can stop these pods.

A reload refuses to remove it (:mod:`noderuntime.lifecycle.reload`). A start cannot refuse, so the ledger
records the handlers' configuration.
"""

from __future__ import annotations

import json

from pydantic import ValidationError

from noderuntime.config import Config, HandlerConfig
from noderuntime.core import log
from noderuntime.core.errors import first_problem
from noderuntime.lifecycle.ledger.ledger import Ledger

_log = log.get(__name__)

_META = "handlers"


async def with_used(config: Config, ledger: Ledger) -> Config:
    """Return the configuration with the handlers that pods use and that it lacks, as they were configured.

    A handler whose type has changed cannot manage those pods, so its old configuration is kept as well.
    """
    remembered = _remembered(await ledger.meta(_META) or "{}")
    used = {sandbox.handler for sandbox in ledger.sandboxes}
    handlers = dict(config.handlers)
    for name in used & remembered.keys():
        before, now = remembered[name], handlers.get(name)
        if now is None or now.type != before.type:
            handlers[name] = before
            _log.warning(
                "a handler keeps its old configuration because pods use it", handler=name, type=before.type
            )
    kept = config.model_copy(update={"handlers": handlers})
    await remember(kept, ledger)
    return kept


def _remembered(text: str) -> dict[str, HandlerConfig]:
    """Return the handlers of the last start. A handler that cannot be parsed is logged and omitted."""
    try:
        entries = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        _log.error("unreadable handlers of the last start ignored", value=text, error=error)
        return {}
    handlers = {}
    for name, entry in entries.items():
        try:
            handlers[name] = HandlerConfig.model_validate(entry)
        except ValidationError as error:
            _log.error(
                "unreadable handler of the last start ignored",
                handler=name,
                value=entry,
                error=first_problem(error),
            )
    return handlers


async def remember(config: Config, ledger: Ledger) -> None:
    """Record the handlers for the next start, before pods use them."""
    # Without defaults: the previous version, which a rollback starts, does not know new settings.
    handlers = {
        name: handler.model_dump(mode="json", exclude_defaults=True)
        for name, handler in config.handlers.items()
    }
    await ledger.set_meta(_META, json.dumps(handlers))
