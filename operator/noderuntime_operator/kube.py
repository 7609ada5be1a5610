"""Requests to the API server, as JSON, through the transport of the official asyncio client.

The client's generated models are not used: they cost memory and drop unknown fields.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from noderuntime_operator.api import API_VERSION
from noderuntime_operator.metrics import Metrics

Json = dict[str, Any]

FIELD_MANAGER = "noderuntime-operator"
PAGE = 500
TIMEOUT_SECONDS = 30

_COLLECTIONS = {
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/pods",
    "AgentPod": "/api/v1/namespaces/{namespace}/pods",
    "Event": "/api/v1/namespaces/default/events",
    "RuntimeClass": "/apis/node.k8s.io/v1/runtimeclasses",
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
    "NodeRuntime": f"/apis/{API_VERSION}/noderuntimes",
    "NodeRuntimeInstance": f"/apis/{API_VERSION}/noderuntimeinstances",
}


class KubeError(Exception):
    """The API server refused a request, or is unreachable (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_lasting(self) -> bool:
        """Whether the API server would refuse the same request again: a user must change something."""
        return self.status in (400, 401, 403, 404, 405, 422)


class Kube:
    """A client with the verbs and kinds that the operator needs."""

    def __init__(self, client: ApiClient, namespace: str, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._namespace = namespace

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
        selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
        query = {"limit": str(PAGE)} | {key: value for key, value in selectors.items() if value}
        while True:
            page = await self._request("GET", self._path(kind), query=query)
            for item in page["items"]:
                yield item
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def is_served(self, kind: str) -> bool:
        """Return whether the API server serves the kind."""
        try:
            await self._request("GET", self._path(kind), query={"limit": "1"})
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def create(self, manifest: Json) -> Json:
        """Create an object and return it. Raises KubeError 409 if it exists."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("POST", self._path(manifest["kind"]), manifest, query=query)

    async def apply(self, manifest: Json) -> Json:
        """Apply an object's fields (server-side apply) and return it; fields of other managers stay."""
        path = self._path(manifest["kind"], manifest["metadata"]["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("PATCH", path, manifest, "application/apply-patch+yaml", query)

    async def patch(self, kind: str, name: str, patch: Json, subresource: str = "") -> Json:
        """Merge a patch into an object and return it. A resourceVersion or uid in the patch must match."""
        path = self._path(kind, name) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", path, patch, "application/merge-patch+json", query)

    async def delete(self, kind: str, name: str, propagation: str = "Background") -> None:
        """Delete an object, if it exists."""
        try:
            await self._request("DELETE", self._path(kind, name), {"propagationPolicy": propagation})
        except KubeError as error:
            if error.status != 404:
                raise

    def _path(self, kind: str, name: str = "") -> str:
        collection = _COLLECTIONS[kind].format(namespace=self._namespace)
        return f"{collection}/{name}" if name else collection

    async def _request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """Send one request and return the answer's JSON. Raises KubeError."""
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
            response = await self._client.call_api(*request, _request_timeout=TIMEOUT_SECONDS)
            data = await response.read()
            code = response.status
        except ApiException as error:
            code = error.status or 0
            raise KubeError(code, _message(error.body) or str(error.reason)) from error
        except (OSError, TimeoutError) as error:
            raise KubeError(0, f"{method} {path}: {error!r}") from error
        finally:
            self._metrics.requested(method, code)
        if not 200 <= code <= 299:
            raise KubeError(code, _message(data) or f"{method} {path}: HTTP {code}")
        answer: Json = json.loads(data)
        return answer


def _message(body: bytes | str | None) -> str:
    """Return the message of a metav1.Status, or an empty string."""
    try:
        return str(json.loads(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return ""
