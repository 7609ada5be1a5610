"""A misbehaving registry, another server beside it, a client with short timeouts, and secrets."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import shutil
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from noderuntime.core.errors import NoderuntimeError
from noderuntime.images.credentials import Credentials, CredentialsFile
from noderuntime.images.reference import Reference, parse
from noderuntime.images.registry.client import Registry
from noderuntime.images.registry.hosts import Hosts
from noderuntime.images.remote import Descriptor, RetryPolicy
from registries.content import Content, parts
from registries.hostile import FaultyRegistry

QUICK = RetryPolicy(
    response_seconds=1.0,
    idle_seconds=0.4,
    least_bytes_per_second=10_000,
    window_seconds=0.8,
    attempts=3,
    longest_wait_seconds=2.0,
    longest_pause_seconds=0.05,
)
REPOSITORY = "team/app"
USER = Credentials("puller", "pa:ss-secret")
IDENTITY = Credentials(identity_token="identity-secret")
BEARER = Credentials(registry_token="registry-token-secret")
SECRETS = (
    "pa:ss-secret",
    "pa%3Ass-secret",
    base64.b64encode(b"puller:pa:ss-secret").decode(),
    "identity-secret",
    "registry-token-secret",
    "minted-token",
    "header-secret",
)
TOO_LONG = 8.0
"""Seconds within which every misbehaviour is detected with these timeouts."""


@dataclass
class Scene:
    """One image in one registry."""

    registry: FaultyRegistry
    other_host: FaultyRegistry
    directory: Path
    manifest: Descriptor
    config: Descriptor
    layer: Descriptor
    _clients: list[Registry] = field(default_factory=list)

    @property
    def reference(self) -> Reference:
        return parse(f"{self.registry.authority}/{REPOSITORY}:v1")

    @property
    def blob(self) -> bytes:
        return self.registry.content.blobs[self.layer.digest]

    def client(self, credentials: Path | None = None, policy: RetryPolicy = QUICK) -> Registry:
        file = CredentialsFile(credentials) if credentials else None
        self._clients.append(Registry(Hosts([self.directory]), file, policy))
        return self._clients[-1]

    def hosts(self, registry: str, toml: str) -> None:
        """Configure the hosts of a registry."""
        directory = self.directory / registry
        directory.mkdir(exist_ok=True)
        (directory / "hosts.toml").write_text(toml)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.registry.stop()
        await self.other_host.stop()
        shutil.rmtree(self.directory)


@asynccontextmanager
async def scene_of(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    """Yield a scene, and check at its end that neither the other server nor the log contains a secret."""
    caplog.set_level(logging.DEBUG)
    content = Content()
    manifest = content.image("v1", (300_000,))
    config, layer = parts(content.manifests[manifest.digest][1])
    registry, other_host = FaultyRegistry(content), FaultyRegistry(content)
    await registry.start()
    await other_host.start()
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-hostile-"))
    scene = Scene(registry, other_host, directory, manifest, config, layer)
    for one in (registry, other_host):
        scene.hosts(one.authority, f'server = "http://{one.authority}"\ndial_timeout = "1s"')
    try:
        yield scene
    finally:
        await scene.close()
    no_secret(b"\n".join(one.raw for one in other_host.asked).decode("latin-1"))
    assert not [one for one in other_host.asked if {"authorization", "cookie"} & one.headers.keys()]
    no_secret("\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records))


async def refused(call: Awaitable[object], kind: type[NoderuntimeError], words: str) -> str:
    """Expect an error in one line, in time, and without secrets in its chain; return the line."""
    begun = monotonic()
    with pytest.raises(NoderuntimeError) as caught:
        async with asyncio.timeout(TOO_LONG * 2):
            await call
    text = str(caught.value)
    assert caught.type is kind, text
    assert re.search(words, text), text
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 500
    assert monotonic() - begun < TOO_LONG
    no_secret("".join(traceback.format_exception(caught.value)))
    return text


def no_secret(text: str) -> None:
    assert not [secret for secret in SECRETS if secret in text]
