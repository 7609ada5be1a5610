"""The renewal of tokens before they expire, and its failures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from noderuntime.core.errors import Unavailable
from noderuntime.images.registry.auth import Authorizer
from noderuntime.images.registry.endpoints import RegistryHost
from noderuntime.images.registry.hosts import Hosts
from noderuntime.images.registry.http_client import Request
from noderuntime.images.registry.responses import Response
from noderuntime.images.remote import DEFAULT_POLICY

HOST = RegistryHost("https", "registry.example")
CHALLENGE = ['Bearer realm="https://registry.example/token"']


@dataclass
class TokenServer:
    """Issues numbered tokens with a lifetime in seconds, or fails while it is down."""

    life: float = 100
    away: bool = False
    now: float = 1000.0
    asked: list[Request] = field(default_factory=list)

    @asynccontextmanager
    async def ask(self, host: RegistryHost, request: Request) -> AsyncIterator[Response]:
        self.asked.append(request)
        if self.away:
            raise Unavailable("away")

        async def body():
            yield json.dumps({"token": str(len(self.asked)), "expires_in": self.life}).encode()

        content = SimpleNamespace(iter_any=body)
        yield Response(SimpleNamespace(status=200, content=content), host.authority, redirected=False)


@pytest.fixture
def server():
    return TokenServer()


@pytest.fixture
def authorizer(server):
    return Authorizer(server, Hosts([]), DEFAULT_POLICY, clock=lambda: server.now)


async def header(authorizer, repository="team/app"):
    return await authorizer.header(HOST, repository, None)


async def renew(authorizer, refused="", realm=""):
    challenge = [f'Bearer realm="{realm}"'] if realm else CHALLENGE
    await authorizer.renew(HOST, "team/app", None, refused, challenge)


async def test_no_header_is_sent_before_a_challenge(authorizer, server):
    assert await header(authorizer) == ""
    assert not server.asked


@pytest.mark.parametrize(("life", "used"), [(100, 80), (10, 48), (86_400, 2880)])
async def test_a_token_is_renewed_before_it_expires(authorizer, server, life, used):
    server.life = life
    await renew(authorizer)
    assert await header(authorizer) == "Bearer 1"
    server.now += used - 1
    assert await header(authorizer) == "Bearer 1"
    server.now += 1
    assert await header(authorizer) == "Bearer 2"
    assert len(server.asked) == 2


async def test_after_a_failed_renewal_a_new_challenge_is_used(authorizer, server):
    """The host may use another token server by now, which only its 401 tells."""
    await renew(authorizer)
    server.now += 80
    server.away = True
    with pytest.raises(Unavailable):
        await header(authorizer)
    assert await header(authorizer) == "Bearer 1", "which the host will answer with a new challenge"
    server.away = False
    await renew(authorizer, "Bearer 1", realm="https://registry.example/new")
    assert await header(authorizer) == "Bearer 3"
    assert server.asked[-1].url.startswith("https://registry.example/new?")


async def test_a_late_401_uses_the_token_renewed_meanwhile(authorizer, server):
    await renew(authorizer)
    await renew(authorizer, "Bearer 1")
    await renew(authorizer, "Bearer 1")
    assert await header(authorizer) == "Bearer 2"
    assert len(server.asked) == 2


async def test_the_cache_of_tokens_is_bounded(authorizer, server):
    await renew(authorizer)
    for number in range(600):
        await header(authorizer, f"team/app{number}")
    assert await header(authorizer) == "", "the token was evicted"
