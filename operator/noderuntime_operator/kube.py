"""Requests to the API server, as JSON, through the transport of the official asyncio client.

The client's generated models are not used: they cost memory and drop unknown fields.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientError, ClientResponse, ClientTimeout
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from noderuntime_operator.api.names import API_VERSION, FIELD_MANAGER
from noderuntime_operator.metrics import Metrics

Json = dict[str, Any]

PAGE = 500
TIMEOUT_SECONDS = 30.0
IDLE_SECONDS = 150.0
"""A watch without a line for this long is dead: the API server sends a bookmark about every minute."""

_COLLECTIONS = {
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/pods",
    "AgentPod": "/api/v1/namespaces/{namespace}/pods",
    "Event": "/api/v1/namespaces/default/events",
    "RuntimeClass": "/apis/node.k8s.io/v1/runtimeclasses",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ControllerRevision": "/apis/apps/v1/namespaces/{namespace}/controllerrevisions",
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
    "AnyDaemonSet": "/apis/apps/v1/daemonsets",
    "NodeRuntime": f"/apis/{API_VERSION}/noderuntimes",
    "NodeRuntimeInstance": f"/apis/{API_VERSION}/noderuntimeinstances",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
}


_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_MANAGED = {"fieldManager": FIELD_MANAGER}


class KubeError(Exception):
    """The API server refused a request, or is unreachable (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_lasting(self) -> bool:
        """Whether the API server would refuse the same request again: a user must change something."""
        return self.status in (400, 401, 403, 404, 405, 422)

    @property
    def is_refusal(self) -> bool:
        """Whether the API server answered: other requests may succeed."""
        return self.status != 0


class NotLeader(Exception):
    """The write was not sent, because this process does not lead."""


@dataclass(frozen=True)
class Page:
    """One page of a list."""

    items: list[Json]
    resource_version: str
    next: str
    """The token of the next page, or an empty string."""


class Kube:
    """A client with the verbs and kinds that the operator needs.

    seconds_to_write returns the deadline of a write that starts now, or 0 if this process must not write.
    """

    def __init__(self, client: ApiClient, namespace: str, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._namespace = namespace
        self.seconds_to_write: Callable[[], float] = lambda: TIMEOUT_SECONDS
        self.idle_seconds = IDLE_SECONDS
        self.one_page = asyncio.Lock()
        """Held while a page is read and handled: pages are large, so only one is in memory."""

    @classmethod
    async def connect(cls, namespace: str, metrics: Metrics) -> Self:
        """Return a client with the pod's ServiceAccount, outside of a cluster with the kubeconfig."""
        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            await load_kube_config(client_configuration=configuration)
        return cls(ApiClient(configuration), namespace, metrics)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def list(
        self, kind: str, field_selector: str = "", label_selector: str = ""
    ) -> AsyncIterator[Json]:
        """Yield every object of a kind, page by page, from the store and not from the watch cache."""
        page = await self.page(kind, field_selector, label_selector)
        while True:
            for item in page.items:
                yield item
            if not page.next:
                return
            page = await self.page(kind, field_selector, label_selector, page.next)

    async def page(
        self, kind: str, field_selector: str = "", label_selector: str = "", token: str = ""
    ) -> Page:
        """Return the first page of a list, or the page of the token."""
        query = {"limit": str(PAGE), "continue": token}
        query |= {"fieldSelector": field_selector, "labelSelector": label_selector}
        answer = await self._request("GET", self._path(kind), query=_given(query))
        meta = answer["metadata"]
        return Page(answer["items"], meta["resourceVersion"], meta.get("continue") or "")

    async def get(self, kind: str, name: str, seconds: float = TIMEOUT_SECONDS) -> Json | None:
        """Return an object, or None if it does not exist."""
        try:
            return await self._request("GET", self._path(kind, name), seconds=seconds)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    @asynccontextmanager
    async def watch(
        self, kind: str, since: str, seconds: int, field_selector: str = "", label_selector: str = ""
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """Return the events of a kind since a resourceVersion, bookmarks included, for some seconds.

        Raises KubeError, with status 410 if the API server no longer has events that old.
        """
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": since}
        query |= {"fieldSelector": field_selector, "labelSelector": label_selector}
        query |= {"timeoutSeconds": str(seconds)}
        timeout = ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=self.idle_seconds)
        sent = self._answer("GET", self._path(kind), None, _given(query), timeout=timeout)
        async with sent as response:
            yield _events(response)

    async def is_served(self, kind: str) -> bool:
        """Return whether the API server serves the kind."""
        try:
            await self._request("GET", self._path(kind), query={"limit": "1"})
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def create(self, manifest: Json, kind: str = "") -> Json:
        """Create an object (of this kind of ours) and return it. Raises KubeError 409 if it exists."""
        return await self._write("POST", self._path(kind or manifest["kind"]), manifest, _MANAGED)

    async def apply(self, manifest: Json) -> Json:
        """Apply an object's fields (server-side apply) and return it; fields of other managers stay."""
        path = self._path(manifest["kind"], manifest["metadata"]["name"])
        return await self._write("PATCH", path, manifest, _MANAGED | {"force": "true"}, _APPLY)

    async def patch(self, kind: str, name: str, patch: Json, subresource: str = "") -> Json:
        """Merge a patch into an object and return it. A resourceVersion or uid in the patch must match."""
        path = self._path(kind, name) + (f"/{subresource}" if subresource else "")
        return await self._write("PATCH", path, patch, _MANAGED, _MERGE)

    async def delete(
        self,
        kind: str,
        name: str,
        preconditions: Mapping[str, str],
        propagation: str = "Background",
        *,
        grace: int | None = None,
        namespace: str = "",
    ) -> None:
        """Delete an object, if it exists. Raises KubeError 409 if its uid or resourceVersion differs.

        grace is a pod's time to end, in seconds; with 0 no kubelet must confirm its end. namespace is the
        operator's, if it is empty.
        """
        options: Json = {"propagationPolicy": propagation, "preconditions": dict(preconditions)}
        options |= {} if grace is None else {"gracePeriodSeconds": grace}
        try:
            await self._write("DELETE", self._path(kind, name, namespace), options)
        except KubeError as error:
            if error.status != 404:
                raise

    async def put_lease(self, lease: Json, seconds: float) -> Json:
        """Create a Lease, or replace the one whose resourceVersion it has; leading is not required."""
        meta = lease["metadata"]
        if "resourceVersion" not in meta:
            return await self._request("POST", self._path("Lease"), lease, seconds=seconds)
        return await self._request("PUT", self._path("Lease", meta["name"]), lease, seconds=seconds)

    def _path(self, kind: str, name: str = "", namespace: str = "") -> str:
        collection = _COLLECTIONS[kind].format(namespace=namespace or self._namespace)
        return f"{collection}/{name}" if name else collection

    async def _write(
        self,
        method: str,
        path: str,
        body: Json,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
    ) -> Json:
        """Send a write. Raises NotLeader if this process must not write."""
        seconds = self.seconds_to_write()
        if seconds <= 0:
            raise NotLeader
        seconds = min(seconds, TIMEOUT_SECONDS)
        return await self._request(method, path, body, query, content_type=content_type, seconds=seconds)

    async def _request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        *,
        content_type: str = _JSON,
        seconds: float = TIMEOUT_SECONDS,
    ) -> Json:
        """Send one request and return the answer's JSON. Raises KubeError."""
        timeout = ClientTimeout(total=seconds)
        sent = self._answer(method, path, body, query, timeout=timeout, content_type=content_type)
        async with sent as response:
            answer: Json = json.loads(await response.read())
        return answer

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        body: Json | None,
        query: Mapping[str, str] | None,
        *,
        timeout: ClientTimeout,
        content_type: str = _JSON,
    ) -> AsyncIterator[ClientResponse]:
        """Send one request and return the successful response. Raises KubeError, also while it is read."""
        response: ClientResponse | None = None
        code = 0
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = (await self._client.call_api(*request, _request_timeout=timeout)).response
            code = response.status
            if not 200 <= code <= 299:
                message = _message(await response.read())
                raise KubeError(code, message or f"{method} {path}: HTTP {code}")
            yield response
        except ApiException as error:
            code = error.status or 0
            raise KubeError(code, _message(error.body) or str(error.reason)) from error
        except (OSError, TimeoutError, ClientError) as error:
            raise KubeError(0, f"{method} {path}: {error!r}") from error
        finally:
            if "watch" not in (query or {}):
                self._metrics.requested(method, code)
            if response is not None:
                response.release()


async def _events(response: ClientResponse) -> AsyncIterator[Json]:
    """Yield the events of a watch. Raises KubeError for an event of type ERROR."""
    while line := await response.content.readline():
        event: Json = json.loads(line)
        if event["type"] == "ERROR":
            status = event["object"]
            raise KubeError(int(status.get("code") or 500), str(status.get("message")))
        yield event


def _given(query: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that have a value."""
    return {key: value for key, value in query.items() if value}


def _message(body: bytes | str | None) -> str:
    """Return the message of a metav1.Status, or an empty string."""
    try:
        return str(json.loads(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return ""
