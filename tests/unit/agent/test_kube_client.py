"""The agent's client against a fake API server over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from fakeinstances import FakeApi, serve

from noderuntime.agent.kube_client import Access, InstanceApi
from noderuntime.core.errors import Internal, NotFound, PermissionDenied, Unavailable

Served = tuple[FakeApi, InstanceApi]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path) as found:
        yield found


async def first(api: InstanceApi) -> dict[str, Any] | None:
    async with aclosing(api.follow()) as bodies:
        return await anext(bodies)


async def test_requests_read_the_rotated_token(served: Served, tmp_path: Path) -> None:
    fake, api = served
    await first(api)
    (tmp_path / "token").write_text("second\n")
    await first(api)
    assert fake.tokens == ["Bearer first", "Bearer second"]


async def test_requests_share_one_connection(served: Served) -> None:
    fake, api = served
    for _ in range(5):
        await first(api)
    assert len(fake.peers) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, PermissionDenied),
        (403, Internal),
        (404, NotFound),
        (410, Unavailable),
        (429, Unavailable),
        (503, Unavailable),
    ],
)
async def test_refused_request_raises_the_servers_message(
    served: Served, status: int, error: type[Exception]
) -> None:
    fake, api = served
    fake.refuse = status
    with pytest.raises(error, match=rf"API server: {status} no"):
        await first(api)


async def test_request_without_a_server_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    api = InstanceApi(Access("http://127.0.0.1:1", tmp_path), "n1")
    with pytest.raises(Unavailable):
        await first(api)
    await api.close()


async def test_request_without_a_token_is_unavailable(served: Served, tmp_path: Path) -> None:
    _, api = served
    (tmp_path / "token").unlink()
    with pytest.raises(Unavailable, match="the pod's token or CA cannot be read"):
        await first(api)


async def test_follow_watches_from_the_lists_revision(served: Served) -> None:
    fake, api = served
    fake.events.put_nowait({"type": "MODIFIED", "object": {"spec": {}}})
    fake.events.put_nowait({"type": "DELETED", "object": {}})
    async with aclosing(api.follow()) as bodies:
        assert await anext(bodies) == fake.body
        assert await anext(bodies) == {"spec": {}}
        assert await anext(bodies) is None
    (query,) = fake.watches
    # The instance's own revision is 1. A restarted API server does not know it any more.
    assert query["resourceVersion"] == "9"


async def test_follow_yields_an_instance_that_is_created_later(served: Served) -> None:
    fake, api = served
    fake.body = None
    fake.events.put_nowait({"type": "ADDED", "object": {"spec": {"state": "Installed"}}})
    async with aclosing(api.follow()) as bodies:
        assert await anext(bodies) is None
        assert await anext(bodies) == {"spec": {"state": "Installed"}}


async def test_watches_have_random_lengths(served: Served) -> None:
    fake, api = served
    for _ in range(20):
        fake.events.put_nowait({})
        with pytest.raises(Unavailable):
            [body async for body in api.follow()]
    lengths = {int(query["timeoutSeconds"]) for query in fake.watches}
    assert len(lengths) > 10
    assert 300 <= min(lengths) < max(lengths) <= 600


async def test_follow_raises_when_the_watch_ends_early(served: Served) -> None:
    fake, api = served
    fake.events.put_nowait({})
    async with aclosing(api.follow()) as bodies:
        assert await anext(bodies) == fake.body
        with pytest.raises(Unavailable, match="ended the watch early"):
            await anext(bodies)


async def test_follow_raises_when_the_revision_is_forgotten(served: Served) -> None:
    fake, api = served
    gone = {"code": 410, "message": "too old resource version: 9 (12)"}
    fake.events.put_nowait({"type": "ERROR", "object": gone})
    async with aclosing(api.follow()) as bodies:
        await anext(bodies)
        with pytest.raises(Unavailable, match="too old resource version"):
            await anext(bodies)
