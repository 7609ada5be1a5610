"""Runs Docker's credential helpers: programs ``docker-credential-NAME``, which know a registry's credentials.

A helper gets the registry's name on stdin and prints ``{"Username": "…", "Secret": "…"}``. One that fails is
logged, and the registry is asked without credentials: a helper can be configured for registries that it does
not know. Results are kept for a minute, because every request of a pull needs them.
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import NoderuntimeError, NotFound, ToolError
from noderuntime.core.tasks import Joint
from noderuntime.images.reference import DOCKER
from noderuntime.node.host.messages import one_line
from noderuntime.node.host.spawn import Spawner

_log = log.get(__name__)

_SECONDS = 30.0
_OUTPUT_LIMIT = 64 << 10
_KEPT_SECONDS = 60.0
_KEPT = 256
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_DOCKER_SERVER = "https://index.docker.io/v1/"
"""The name that helpers know Docker's registry by."""
_UNKNOWN = "credentials not found"
"""Part of the message of a helper that has no credentials for a registry."""


class Secret(BaseModel):
    """The output of a helper. Unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    username: str = Field(alias="Username", repr=False)
    secret: str = Field(alias="Secret", repr=False)


class _Kept(NamedTuple):
    found: Secret | None
    until: float


class CredentialHelpers:
    """The helpers of this node, by name. For use on one event loop."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        """Kill helpers that have not finished after ``seconds``."""
        self._seconds = seconds
        self._spawner = Spawner()
        self._joint: Joint[Secret | None] = Joint("run a credential helper")
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def get(self, name: str, registry: str) -> Secret | None:
        """Return what a helper knows about a registry, or None if it knows nothing or fails."""
        key = (name, _DOCKER_SERVER if registry == DOCKER else registry)
        kept = self._kept.get(key)
        if kept is not None and monotonic() < kept.until:
            return kept.found
        return await self._joint.do(key, lambda: self._ask(*key))

    async def _ask(self, name: str, server: str) -> Secret | None:
        found = None
        try:
            found = await self._run(name, server)
        except NoderuntimeError as error:
            _log.warning("credential helper failed", helper=name, registry=server, error=error)
        self._kept.pop((name, server), None)
        if len(self._kept) >= _KEPT:
            self._kept.popitem(last=False)
        self._kept[name, server] = _Kept(found, monotonic() + _KEPT_SECONDS)
        return found

    async def _run(self, name: str, server: str) -> Secret | None:
        program, env = await FILES.run(_program, name)
        done = await self._spawner.run(
            [program, "get"],
            timeout=self._seconds,
            stdin=server.encode(),
            env=env,
            output_limit=_OUTPUT_LIMIT,
        )
        if done.returncode != 0:
            message = one_line((done.stdout or done.stderr).decode(errors="replace"))
            if _UNKNOWN in message:
                return None
            raise ToolError(program, "get", done.returncode, message)
        try:
            return Secret.model_validate_json(done.stdout)
        except ValidationError as error:
            raise ToolError(program, "get", 0, "no JSON object with Username and Secret") from error


def _program(name: str) -> tuple[str, dict[str, str]]:
    """Return a helper's path and environment. NotFound if it is not installed. Blocks."""
    path = os.environ.get("PATH") or _DEFAULT_PATH
    program = shutil.which(f"docker-credential-{name}", path=path)
    if program is None:
        raise NotFound(f"docker-credential-{name} is not in {path}")
    return program, {"HOME": str(Path.home()), **os.environ, "PATH": path}
