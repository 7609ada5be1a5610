"""Tokens through time: renewed before they end, and what happens when that fails."""

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
from noderuntime.images.registry.responses import Answer
from noderuntime.images.remote import PATIENCE

HOST = RegistryHost("https", "registry.example")
CHALLENGE = ['Bearer realm="https://registry.example/token"']


@dataclass
class TokenServer:
    """Gives numbered tokens for a life of so many seconds, unless it is away."""

    life: float = 100
    away: bool = False
    now: float = 1000.0
    asked: list[Request] = field(default_factory=list)

    @asynccontextmanager
    async def ask(self, host: RegistryHost, request: Request) -> AsyncIterator[Answer]:
        self.asked.append(request)
        if self.away:
            raise Unavailable("away")

        async def body():
            yield json.dumps({"token": str(len(self.asked)), "expires_in": self.life}).encode()

        content = SimpleNamespace(iter_any=body)
        yield Answer(SimpleNamespace(status=200, content=content), host.authority, redirected=False)


@pytest.fixture
def server():
    return TokenServer()


@pytest.fixture
def authorizer(server):
    return Authorizer(server, Hosts([]), PATIENCE, clock=lambda: server.now)


async def header(authorizer, repository="team/app"):
    return await authorizer.header(HOST, repository, None)


async def renew(authorizer, refused="", realm=""):
    challenge = [f'Bearer realm="{realm}"'] if realm else CHALLENGE
    await authorizer.renew(HOST, "team/app", None, refused, challenge)


async def test_nothing_is_said_before_somebody_asks(authorizer, server):
    assert await header(authorizer) == ""
    assert not server.asked


@pytest.mark.parametrize(("life", "used"), [(100, 80), (10, 48), (86_400, 2880)])
async def test_a_token_is_renewed_before_it_ends(authorizer, server, life, used):
    server.life = life
    await renew(authorizer)
    assert await header(authorizer) == "Bearer 1"
    server.now += used - 1
    assert await header(authorizer) == "Bearer 1"
    server.now += 1
    assert await header(authorizer) == "Bearer 2"
    assert len(server.asked) == 2


async def test_a_renewal_that_fails_is_an_error_once_and_then_the_hosts_business(authorizer, server):
    """The host may name another token server by now; only its 401 tells."""
    await renew(authorizer)
    server.now += 80
    server.away = True
    with pytest.raises(Unavailable):
        await header(authorizer)
    assert await header(authorizer) == "Bearer 1", "which the host will refuse, and say where to go"
    server.away = False
    await renew(authorizer, "Bearer 1", realm="https://registry.example/new")
    assert await header(authorizer) == "Bearer 3"
    assert server.asked[-1].url.startswith("https://registry.example/new?")


async def test_who_comes_too_late_with_a_refusal_takes_what_is_there(authorizer, server):
    await renew(authorizer)
    await renew(authorizer, "Bearer 1")
    await renew(authorizer, "Bearer 1")
    assert await header(authorizer) == "Bearer 2"
    assert len(server.asked) == 2


async def test_what_is_remembered_is_bounded(authorizer, server):
    await renew(authorizer)
    for number in range(600):
        await header(authorizer, f"team/app{number}")
    assert await header(authorizer) == "", "forgotten"
