"""Tokens: valid once and for a limited time, limited in number, and unguessable."""

from __future__ import annotations

import pytest

from noderuntime.core.errors import ResourceExhausted
from noderuntime.core.sessions import Command, Streams
from noderuntime.edge.streaming.tokens import MOST, Tokens


async def _run(_stdio: object) -> int:
    return 0


def session() -> Command:
    return Command("exec", Streams(False, True, False, False), _run)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_valid_once() -> None:
    tokens, wanted = Tokens(60), session()
    token = tokens.put(wanted)
    assert tokens.take(token) is wanted
    assert tokens.take(token) is None
    assert tokens.take("") is None


def test_a_token_expires() -> None:
    clock = Clock()
    tokens = Tokens(60, clock)
    first = tokens.put(session())
    clock.now += 59.9
    second = tokens.put(session())
    assert tokens.take(first) is not None
    clock.now += 60
    assert tokens.take(second) is None


def test_waiting_sessions_are_limited_and_expire() -> None:
    clock = Clock()
    tokens = Tokens(60, clock)
    made = {tokens.put(session()) for _ in range(MOST)}
    assert len(made) == MOST
    assert min(map(len, made)) >= 43  # 32 random bytes
    with pytest.raises(ResourceExhausted, match="1000 sessions already wait"):
        tokens.put(session())
    tokens.take(made.pop())
    tokens.put(session())
    clock.now += 61
    for _ in range(MOST):
        tokens.put(session())
