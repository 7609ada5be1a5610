"""Reads responses within limits, and describes failures in our own words.

Errors repeat nothing from a server but host names and the error codes of the distribution spec: a server
can be hostile, and can echo credentials.
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

_ERROR_BODY_LIMIT = 8 << 10
_ERROR_BODY_SECONDS = 5.0

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


class Unsupported(Unavailable):
    """The server does not support the method of the request."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose body has not been read."""

    http: aiohttp.ClientResponse
    origin: str
    """Host and port of the sender, for error messages."""
    redirected: bool
    """Whether the sender is another host than requested. It gets no credentials."""


async def read_small(response: Response, limit: int, seconds: float) -> bytes:
    """Return the whole body. ResourceExhausted above the limit, Unavailable if it takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in response.http.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise ResourceExhausted(f"{response.origin}: sent more than {limit} bytes")
    except TimeoutError as error:
        raise Unavailable(f"{response.origin}: sending the body takes longer than {seconds:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise connection_error(response.origin, error) from error
    return bytes(body)


async def status_error(response: Response) -> NoderuntimeError:
    """Return the error for a response with an unexpected status."""
    where, status = response.origin, response.http.status
    code = await _code(response.http) or str(status)
    if status in {401, 403}:
        return PermissionDenied(f"{where}: access denied ({code})")
    if status == 404:
        return NotFound(f"{where}: not found ({code})")
    if status == 416:
        return Unresumable(f"{where}: cannot resume at this offset")
    wait = retry_after(response.http)
    later = f", retry after {wait:.0f} s" if wait else ""
    if status == 429:
        return Limited(f"{where}: too many requests ({code}){later}", wait)
    if status in {408, 500, 502, 503, 504}:
        return Broken(f"{where}: status {status}{later}", wait)
    kind = Unsupported if status in {405, 501} else Unavailable
    return kind(f"{where}: status {status}")


def retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Return the seconds of Retry-After (RFC 9110, 10.2.3), or None."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def connection_error(where: str, error: Exception) -> NoderuntimeError:
    """Return the error for a request without a response, or with an incomplete one."""
    transient = isinstance(
        error,
        aiohttp.ServerDisconnectedError
        | aiohttp.ClientPayloadError
        | aiohttp.ClientOSError
        | ConnectionError,
    ) and not isinstance(error, aiohttp.ClientConnectorError)
    return (Broken if transient else Unavailable)(f"{where}: {_reason(error)}")


async def _code(response: aiohttp.ClientResponse) -> str:
    """Return the error code in the body of an error response (distribution spec, Error Codes), or ""."""
    try:
        async with asyncio.timeout(_ERROR_BODY_SECONDS):
            raw = await response.content.read(_ERROR_BODY_LIMIT)
        code = json.loads(raw)["errors"][0]["code"]
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return code if isinstance(code, str) and code in _CODES else ""


def _reason(error: Exception) -> str:
    """Describe a failure without repeating text of the server."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
        return f"its certificate is not accepted: {reason}"
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"cannot connect: {os.strerror(number).lower() if number else 'failed'}"
    if isinstance(error.__cause__, ssl.SSLError):
        return "closed the TLS connection; it may require a client certificate"
    return "the connection was interrupted"


_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((aiohttp.ClientConnectorSSLError,), "the TLS handshake failed"),
    ((aiohttp.ClientConnectorDNSError, UnicodeError), "its name cannot be resolved"),
    ((aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError), "its proxy refuses the connection"),
    ((TimeoutError,), "timed out"),
    ((aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError), "the connection was interrupted"),
    ((aiohttp.ClientResponseError,), "the response is not valid HTTP"),
    ((ValueError,), "its URL is invalid"),
)
