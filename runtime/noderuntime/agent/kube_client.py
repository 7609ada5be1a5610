"""A client of the Kubernetes API that reads, watches and patches the instance of this node."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from noderuntime.core import durable_files as files
from noderuntime.core.errors import DeadlineExceeded, Internal, NotFound, Unavailable

_RESOURCE = "/apis/noderuntime.dev/v1alpha1/noderuntimeinstances"
_WATCH_SECONDS = 300
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
    """The API of this node's instance. Calls raise NotFound, Unavailable or Internal."""

    def __init__(self, access: Access, node: str) -> None:
        self._access = access
        self._node = node

    async def get(self) -> dict[str, Any]:
        """Return the instance."""
        found: dict[str, Any] = await self._send("GET", f"{_RESOURCE}/{self._node}")
        return found

    async def patch_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """Apply a merge patch to the status and return the instance."""
        found: dict[str, Any] = await self._send(
            "PATCH",
            f"{_RESOURCE}/{self._node}/status",
            body=json.dumps({"status": status}),
            content_type="application/merge-patch+json",
        )
        return found

    async def watch(self, resource_version: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield the instance whenever it changes.

        Ends after some minutes, or when the server requires a new get (event ERROR).
        Raises NotFound when the instance is deleted.
        """
        query = {
            "watch": "1",
            "fieldSelector": f"metadata.name={self._node}",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30, connect=10)
        async with (
            self._session(timeout) as session,
            _checked(session.get(_RESOURCE, params=query)) as answer,
        ):
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "DELETED":
                    raise NotFound(f"the instance {self._node} was deleted")
                if event["type"] == "ERROR":
                    return
                yield event["object"]

    async def _send(self, method: str, path: str, *, body: str | None = None, content_type: str = "") -> Any:
        headers = {"Content-Type": content_type} if content_type else {}
        timeout = aiohttp.ClientTimeout(total=20, connect=10)
        async with (
            self._session(timeout) as session,
            _checked(session.request(method, path, data=body, headers=headers)) as answer,
        ):
            return await answer.json()

    def _session(self, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        try:
            connector = aiohttp.TCPConnector(ssl=self._access.tls() or True)
            headers = self._access.headers()
        except OSError as error:
            raise Unavailable(f"the pod's token or CA cannot be read: {error}") from error
        return aiohttp.ClientSession(
            self._access.url, connector=connector, headers=headers, timeout=timeout, read_bufsize=_LINE_LIMIT
        )


class _checked:  # noqa: N801 - reads as a function where it is used
    """A request whose failures are raised as NoderuntimeErrors."""

    def __init__(self, request: Any) -> None:
        self._request = request

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            answer: aiohttp.ClientResponse = await self._request.__aenter__()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"API server: {error or type(error).__name__}") from error
        if answer.status >= 400:
            await self._raise(answer)
        return answer

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        await self._request.__aexit__(kind, error, trace)
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded("API server: the request timed out") from error
        if isinstance(error, aiohttp.ClientError | OSError | json.JSONDecodeError):
            raise Unavailable(f"API server: {error}") from error

    async def _raise(self, answer: aiohttp.ClientResponse) -> None:
        text = (await answer.content.read(4096)).decode(errors="replace")
        await self._request.__aexit__(None, None, None)
        try:
            message = json.loads(text)["message"]
        except (ValueError, KeyError, TypeError):
            message = " ".join(text.split())[:200]
        if answer.status == 404:
            raise NotFound(f"API server: {message}")
        if answer.status == 429 or answer.status >= 500 or answer.status == 410:
            raise Unavailable(f"API server: {answer.status} {message}")
        raise Internal(f"API server: {answer.status} {message}")
