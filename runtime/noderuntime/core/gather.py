"""Steps at the same time, none of which may be cut off half-way because another failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def together(*steps: Awaitable[None]) -> None:
    """Wait for all steps to end, then raise the error of the first of them that failed."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
