"""A client of the Kubernetes API that follows the instance of this node and patches its status."""

from __future__ import annotations

import json
import random
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from noderuntime.core import durable_files as files
from noderuntime.core.errors import (
    DeadlineExceeded,
    Internal,
    NoderuntimeError,
    NotFound,
    PermissionDenied,
    Unavailable,
)

_RESOURCE = "/apis/noderuntime.dev/v1alpha1/noderuntimeinstances"
_WATCH_SECONDS = 300, 600
_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=10)
_NO_HEADERS: Mapping[str, str] = {}
_LINE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Access:
    """A pod's access to the API server. Token and CA are read for every use, because both are rotated."""

    url: str
    directory: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")

    @classmethod
    def of_pod(cls, environment: Mapping[str, str]) -> Access:
        """Return the access that the kubelet set in the environment. Internal if it is not set."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            raise Internal("KUBERNETES_SERVICE_HOST and _PORT are not set: run the agent in a pod")
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")

    def namespace(self) -> str:
        """Return the pod's namespace, or an empty string if it cannot be read."""
        return (files.read(self.directory / "namespace") or b"").decode(errors="replace").strip()

    def headers(self) -> dict[str, str]:
        """Return the Authorization header."""
        return {"Authorization": f"Bearer {(self.directory / 'token').read_text().strip()}"}

    def tls(self) -> ssl.SSLContext | None:
        """Return a TLS context that trusts the cluster's CA, or None for a plain HTTP URL (tests)."""
        if not self.url.startswith("https://"):
            return None
        return ssl.create_default_context(cafile=self.directory / "ca.crt")


class InstanceApi:
    """The API of this node's instance, through one HTTP session.

    Calls raise NotFound, PermissionDenied (401), Unavailable, DeadlineExceeded or Internal.
    """

    def __init__(self, access: Access, node: str) -> None:
        self._access = access
        self._node = node
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections. The next call opens new ones and reads the CA again."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def follow(self) -> AsyncGenerator[dict[str, Any] | None]:
        """Yield the instance now and whenever it changes, or None while it does not exist.

        Ends after five to ten minutes, which are random so that the agents of a cluster do not end together.
        Raises Unavailable if the server ends it earlier, or has forgotten the revision (410).

        A watch from the instance's own revision would not do: an API server that restarted does not know
        revisions of before, and refuses it until the instance changes.
        """
        found = await self._send("GET", _RESOURCE, params=self._only_mine)
        yield next(iter(found["items"]), None)
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - spreads load; not a secret
        async with aclosing(self._watch(found["metadata"]["resourceVersion"], seconds)) as events:
            async for event in events:
                yield None if event["type"] == "DELETED" else event["object"]

    async def patch_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """Apply a merge patch to the status and return the instance."""
        found: dict[str, Any] = await self._send(
            "PATCH",
            f"{_RESOURCE}/{self._node}/status",
            data=json.dumps({"status": status}),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        return found

    @property
    def _only_mine(self) -> dict[str, str]:
        return {"fieldSelector": f"metadata.name={self._node}"}

    async def _watch(self, resource_version: str, seconds: int) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a watch that the server ends after these seconds."""
        query = {"watch": "1", "resourceVersion": resource_version, "timeoutSeconds": str(seconds)}
        timeout = aiohttp.ClientTimeout(total=seconds + 30, connect=10)
        began = time.monotonic()
        async with self._request("GET", _RESOURCE, params=self._only_mine | query, timeout=timeout) as answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Unavailable(f"API server: {event['object'].get('message', 'watch failed')}")
                yield event
        if time.monotonic() - began < seconds - 1:
            raise Unavailable("API server: it ended the watch early")

    async def _send(self, method: str, path: str, **options: Any) -> Any:
        async with self._request(method, path, **options) as answer:
            return await answer.json()

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
        headers: Mapping[str, str] = _NO_HEADERS,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; its failures, and those of reading the answer, are raised as NoderuntimeErrors."""
        try:
            session = self._session = self._session or self._open()
            headers = {**headers, **self._access.headers()}
        except OSError as error:
            raise Unavailable(f"the pod's token or CA cannot be read: {error}") from error
        try:
            async with session.request(method, path, headers=headers, timeout=timeout, **options) as answer:
                if answer.status >= 400:
                    raise await _refusal(answer)
                yield answer
        except TimeoutError as error:
            raise DeadlineExceeded("API server: the request timed out") from error
        except aiohttp.ClientSSLError as error:
            await self.close()
            raise Unavailable(f"API server: {error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"API server: {error or type(error).__name__}") from error

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self._access.tls() or True, socket_factory=_socket)
        return aiohttp.ClientSession(self._access.url, connector=connector, read_bufsize=_LINE_LIMIT)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket whose connection is closed within a minute when its peer does not answer any more."""
    family, kind, protocol, _, _ = address
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        found.setsockopt(socket.IPPROTO_TCP, option, value)
    return found


async def _refusal(answer: aiohttp.ClientResponse) -> NoderuntimeError:
    """Return the error of an answer, with the server's message."""
    text = (await answer.content.read(4096)).decode(errors="replace")
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = " ".join(text.split())[:200]
    kinds = {401: PermissionDenied, 404: NotFound, 410: Unavailable, 429: Unavailable}
    kind = kinds.get(answer.status, Unavailable if answer.status >= 500 else Internal)
    return kind(f"API server: {answer.status} {message}")
