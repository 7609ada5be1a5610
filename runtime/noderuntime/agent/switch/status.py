"""``noderuntime switch status``: the state of the switch as JSON."""

from __future__ import annotations

import json

from noderuntime.agent import desired
from noderuntime.agent.switch import facts, release
from noderuntime.agent.switch import journal as records
from noderuntime.agent.switch.context import Context
from noderuntime.core.errors import NoderuntimeError


async def status(context: Context) -> str:
    """Return configuration, journal, last result, and the endpoint of the running kubelet, as JSON."""
    journal = records.load_journal(context.layout.journal)
    result = records.load_result(context.layout.result)
    known = release.load(context.layout)
    try:
        endpoint = (await facts.observe(context.layout, context.systemd)).endpoint
    except NoderuntimeError as error:
        endpoint = f"unknown: {error}"
    return json.dumps(
        {
            "order": desired.load(context.layout.switch_config).model_dump(mode="json"),
            "kubeletEndpoint": endpoint,
            "journal": journal.model_dump(mode="json", exclude={"files"}) if journal else None,
            "files": [str(entry.path) for entry in journal.files] if journal else [],
            "serving": known.serving.digest if known.serving else None,
            "previous": [kept.digest for kept in known.previous],
            "failed": known.failed.model_dump() if known.failed else None,
            "result": result.model_dump(mode="json") if result else None,
        },
        indent=1,
    )
