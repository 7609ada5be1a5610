"""Handlers that pods use stay when a start finds a configuration without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import Node, pod_config

from noderuntime.config import Config
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.used_handlers import remember, with_used


def _config(node: Node, **handlers: dict[str, Any]) -> Config:
    return Config.model_validate(node.parts.config.model_dump() | {"handlers": handlers})


@pytest.mark.parametrize("now", [{}, {"gvisor": {"type": "runc", "path": "/opt/other"}}])
async def test_start_keeps_a_used_handler_until_its_pods_are_gone(node: Node, now: dict[str, Any]) -> None:
    await remember(node.parts.config, node.parts.ledger)
    pod = await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    wanted = _config(node, crun={"type": "runc", "path": "/opt/crun"}, **now)

    kept = await with_used(wanted, node.parts.ledger)
    assert kept.handlers.keys() == {"crun", "gvisor"}, "and runc, which nobody uses, is gone"
    assert kept.handlers["gvisor"] == node.parts.config.handlers["gvisor"]
    assert await with_used(wanted, node.parts.ledger) == kept, "at the second start as well"

    await remove_pod_sandbox(node.parts, pod)
    assert await with_used(wanted, node.parts.ledger) == wanted


async def test_remembered_handlers_contain_no_defaults(node: Node) -> None:
    await remember(_config(node, gvisor={"type": "gvisor", "path": "/g"}), node.parts.ledger)
    assert await node.parts.ledger.meta("handlers") == '{"gvisor": {"type": "gvisor", "path": "/g"}}'


async def test_start_uses_the_new_path_of_a_used_handler(node: Node) -> None:
    await remember(node.parts.config, node.parts.ledger)
    await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    wanted = _config(node, gvisor={"type": "gvisor", "path": "/opt/new"})
    assert (await with_used(wanted, node.parts.ledger)).handlers["gvisor"].path == Path("/opt/new")


@pytest.mark.parametrize(
    "kept",
    [
        "nonsense",
        "[1]",
        '{"gvisor": {"type": "magic", "path": "/x"}, "runc": {"type": "runc", "path": "/r"}}',
    ],
)
async def test_start_ignores_an_unreadable_handler(
    node: Node, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    await run_pod_sandbox(node.parts, pod_config("one"), "gvisor")
    await run_pod_sandbox(node.parts, pod_config("two"), "runc")
    await node.parts.ledger.set_meta("handlers", kept)
    handlers = (
        await with_used(_config(node, crun={"type": "oci", "path": "/c"}), node.parts.ledger)
    ).handlers
    assert list(handlers) == (["crun", "runc"] if "runc" in kept else ["crun"])
    assert "of the last start ignored" in caplog.text
