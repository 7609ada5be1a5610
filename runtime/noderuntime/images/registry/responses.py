"""What a registry answered: read within bounds, or told in our own words.

Nothing that a server says is repeated in an error but host names and the error codes that
the distribution spec defines: it may be hostile, and it may say back what we told it.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time

import aiohttp

from noderuntime.core.errors import (
    NoderuntimeError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from noderuntime.images.registry.retry import Broken, Limited, Unresumable

_COMPLAINT_LIMIT = 8 << 10
_COMPLAINT_SECONDS = 5.0

_CODES = frozenset(
    {
        "BLOB_UNKNOWN",
        "DENIED",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "TOOMANYREQUESTS",
        "UNAUTHORIZED",
        "UNKNOWN",
        "UNSUPPORTED",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is not read yet."""

    response: aiohttp.ClientResponse
    origin: str
    """Host and port that it is from, for error texts."""
    redirected: bool
    """That is another host than was asked, which knows nothing of us."""


async def read_small(answer: Answer, limit: int, seconds: float) -> bytes:
    """Read a whole body; ResourceExhausted beyond the limit, Unavailable when it takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in answer.response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise ResourceExhausted(f"{answer.origin}: sends more than {limit} bytes")
    except TimeoutError as error:
        raise Unavailable(f"{answer.origin}: takes too long") from error
    except (aiohttp.ClientError, OSError) as error:
        raise failure(answer.origin, error) from error
    return bytes(body)


async def refusal(answer: Answer) -> NoderuntimeError:
    """Turn a status that is not the wanted one into an error."""
    where, status = answer.origin, answer.response.status
    code = await _code(answer.response) or str(status)
    if status in {401, 403}:
        return PermissionDenied(f"{where}: access is denied ({code})")
    if status == 404:
        return NotFound(f"{where}: not found ({code})")
    if status == 416:
        return Unresumable(f"{where}: cannot go on in the middle")
    wait = retry_after(answer.response)
    later = f", asks us to come back in {wait:.0f} s" if wait else ""
    if status == 429:
        return Limited(f"{where}: too many requests ({code}){later}", wait)
    if status in {408, 500, 502, 503, 504}:
        return Broken(f"{where}: answers with status {status}{later}", wait)
    return Unavailable(f"{where}: answers with status {status}")


def retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Return the seconds that the server wants us to wait (RFC 9110, 10.2.3), if it says."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def failure(where: str, error: Exception) -> NoderuntimeError:
    """Say why there is no answer, or why it ends before its end."""
    passes = isinstance(
        error,
        aiohttp.ServerDisconnectedError
        | aiohttp.ClientPayloadError
        | aiohttp.ClientOSError
        | ConnectionError,
    ) and not isinstance(error, aiohttp.ClientConnectorError)
    return (Broken if passes else Unavailable)(f"{where}: {_words(error)}")


async def _code(response: aiohttp.ClientResponse) -> str:
    """Find the error code in a refusal (distribution spec, Error Codes)."""
    try:
        async with asyncio.timeout(_COMPLAINT_SECONDS):
            raw = await response.content.read(_COMPLAINT_LIMIT)
        code = json.loads(raw)["errors"][0]["code"]
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return code if isinstance(code, str) and code in _CODES else ""


def _words(error: Exception) -> str:
    """Describe a failure without repeating anything from outside."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
        return f"its certificate is not accepted: {reason}"
    for kinds, words in _WORDS:
        if isinstance(error, kinds):
            return words
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"cannot connect: {os.strerror(number).lower() if number else 'failed'}"
    if isinstance(error.__cause__, ssl.SSLError):
        return "ends TLS; it may want a client certificate"
    return "the connection broke off"


_WORDS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((aiohttp.ClientConnectorSSLError,), "TLS cannot be agreed on"),
    ((aiohttp.ClientConnectorDNSError, UnicodeError), "its name cannot be resolved"),
    ((aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError), "its proxy does not let us through"),
    ((TimeoutError,), "no answer in time"),
    ((aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError), "the connection broke off"),
    ((aiohttp.ClientResponseError,), "what it answers is not HTTP"),
    ((ValueError,), "cannot be asked"),
)
