"""Requests to the API server with the rights of the kubeconfig's user, as JSON.

Objects are read as JSON and not with the operator's models: the plugin must show objects of an older or
newer operator, too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from aiohttp import ClientError, ClientTimeout
from kubernetes.aio.client import ApiClient, ApiException
from kubernetes.aio.client.rest import RESTResponse

from kubectl_noderuntime import kubeconfig
from kubectl_noderuntime.errors import Refused, Unreadable
from kubectl_noderuntime.objects import part
from noderuntime_operator.api.names import API_VERSION

Json = dict[str, Any]

FIELD_MANAGER = "kubectl-noderuntime"
PAGE = 500
_WITHIN = ClientTimeout(total=30, sock_connect=10)
_WATCH_SECONDS = 300
_WATCHING = ClientTimeout(total=_WATCH_SECONDS + 30, sock_connect=10)
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

_COLLECTIONS = {
    "NodeRuntime": f"/apis/{API_VERSION}/noderuntimes",
    "NodeRuntimeInstance": f"/apis/{API_VERSION}/noderuntimeinstances",
    "ControllerRevision": "/apis/apps/v1/controllerrevisions",
    "RuntimeClass": "/apis/node.k8s.io/v1/runtimeclasses",
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Event": "/api/v1/namespaces/{namespace}/events",
}
_FROM_CACHE = ("NodeRuntimeInstance",)
"""Thousands of objects: the API server lists them from its memory, in a fifth of the time."""
_OURS = f"/apis/{API_VERSION}/"


class Cluster:
    """A connection to the API server; ``namespace`` is that of the command line, else of the context."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    @classmethod
    async def connect(cls, file: str | None, context: str | None, namespace: str | None) -> Self:
        """Return a connection to the cluster that the options select. Raises Unreadable."""
        target = await kubeconfig.load(file, context)
        try:
            client = ApiClient(target.configuration)
        except (OSError, ValueError) as error:
            raise Unreadable(f"the kubeconfig has an invalid certificate or key: {error}") from error
        return cls(client, namespace or target.namespace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def get(self, kind: str, name: str) -> Json:
        """Return an object. Raises Refused."""
        return await self._json("GET", self._path(kind, name))

    async def objects(self, kind: str, *, fields: str = "", labels: str = "") -> list[Json]:
        """Return every object of a kind that matches the selectors. Raises Refused."""
        items, _ = await self.snapshot(kind, fields=fields, labels=labels)
        return items

    async def snapshot(self, kind: str, *, fields: str = "", labels: str = "") -> tuple[list[Json], str]:
        """Return the objects, and the resourceVersion at which a watch continues. Raises Refused."""
        query = {"limit": str(PAGE), **_selectors(fields, labels)}
        if kind in _FROM_CACHE:
            query["resourceVersion"] = "0"
        items: list[Json] = []
        while True:
            page = await self._json("GET", self._path(kind), query=query)
            items += page.get("items") or []
            meta = part(page, "metadata")
            if not (token := meta.get("continue")):
                return items, str(meta.get("resourceVersion") or "")
            query["continue"] = token

    async def has(self, kind: str, labels: str) -> bool:
        """Return whether an object with these labels exists. Raises Refused."""
        query = {"limit": "1", "labelSelector": labels}
        page = await self._json("GET", self._path(kind), query=query, accept=_METADATA)
        return bool(page.get("items"))

    async def patch(self, kind: str, name: str, patch: Json) -> Json:
        """Merge a patch into an object and return it; an unknown field is an error. Raises Refused."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._json("PATCH", self._path(kind, name), body=patch, query=query)

    async def watch(
        self, kind: str, version: str, *, fields: str = "", labels: str = ""
    ) -> AsyncGenerator[tuple[str, Json]]:
        """Yield changes after this resourceVersion, until the API server ends the watch. Raises Refused."""
        query = {"watch": "true", "timeoutSeconds": str(_WATCH_SECONDS), "resourceVersion": version}
        query |= _selectors(fields, labels)
        response = await self._send("GET", self._path(kind), query=query, timeout=_WATCHING)
        try:
            async for line in response.response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Refused(int(event["object"].get("code") or 0), str(event["object"].get("message")))
                yield event["type"], event["object"]
        except (ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            response.response.close()

    def _path(self, kind: str, name: str = "") -> str:
        collection = _COLLECTIONS[kind].format(namespace=quote(self.namespace, safe=""))
        return f"{collection}/{quote(name, safe='')}" if name else collection

    async def _json(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> Json:
        """Send a request and return the response's JSON. Raises Refused."""
        response = await self._send(method, path, body=body, query=query, accept=accept)
        try:
            answer = json.loads(await response.read())
        except (ClientError, OSError) as error:
            raise self._unreachable(error) from error
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            host = self._client.configuration.host
            raise Refused(0, f"{host} is no Kubernetes API server (check --context and the kubeconfig)")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
        timeout: ClientTimeout = _WITHIN,
    ) -> RESTResponse:
        """Send a request and return its response, which is a success. Raises Refused."""
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": accept, "Content-Type": "application/merge-patch+json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=timeout)
            if 200 <= response.status <= 299:
                return response
            raise _refusal(path, response.status, await response.read())
        except (ApiException, ClientError, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Refused:
        host = self._client.configuration.host
        cause = str(error) or type(error).__name__
        return Refused(0, f"no answer from the API server {host}: {cause} (check --context and the network)")


def _selectors(fields: str, labels: str) -> dict[str, str]:
    both = {"fieldSelector": fields, "labelSelector": labels}
    return {key: value for key, value in both.items() if value}


def _refusal(path: str, status: int, body: bytes) -> Refused:
    """Return the error of an HTTP status, with the API server's own message where it has one."""
    message = _message(body)
    if status == 401:
        return Refused(
            status, "the API server does not accept your credentials (log in again, or give --context)"
        )
    if status == 403:
        return Refused(status, f"{message or 'forbidden'} (ask an administrator for a role that allows it)")
    if status == 404 and not message and path.startswith(_OURS):
        return Refused(
            status, "the cluster has no NodeRuntimes: install the chart, or select it with --context"
        )
    if status == 404 and message:
        return Refused(status, f"{message} (check the name, --namespace and --context)")
    return Refused(status, message or f"the API server answered HTTP {status} for {path} (try again)")


def _message(body: bytes) -> str:
    """Return the message of a metav1.Status about an object, or an empty string."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
