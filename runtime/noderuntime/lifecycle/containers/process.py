"""The OCI process of a command in a container, from the spec that the container was made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.spec import builder


def check_command(command: Sequence[str]) -> None:
    """Raise InvalidArgument when there is no command."""
    if not command:
        raise InvalidArgument("there is no command to run")


async def exec_process(
    parts: Parts, container: Container, command: Sequence[str], *, tty: bool = False
) -> dict[str, Any]:
    """Return what the runtime is to run."""
    spec = json.loads(await FILES.run(parts.paths.container(container.id).spec.read_bytes))
    return builder.exec_process(spec, command, tty=tty)
