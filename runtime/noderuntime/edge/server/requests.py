"""Parsing and validation of requests.

The kubelet forwards what users write, so names have a maximum length and IDs a format. Requests for the
upstream are checked too, and then forwarded unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from google.protobuf.message import DecodeError, Message

from noderuntime.core import ids
from noderuntime.core.errors import InvalidArgument
from noderuntime.edge.router.routes import Method

_NAME = 253
"""Bytes of a Kubernetes object name (a DNS subdomain) or anything derived from one."""
_HOSTNAME = 64
"""HOST_NAME_MAX of Linux."""
_IMAGE = 1024
"""Bytes of an image reference. The longest parts are the name (255), the tag (128) and a digest."""

_POD_LIMITS = {
    "config.metadata.name": _NAME,
    "config.metadata.namespace": _NAME,
    "config.metadata.uid": _NAME,
    "config.hostname": _HOSTNAME,
}
_IMAGE_LIMITS = {"image.image": _IMAGE, "image.user_specified_image": _IMAGE}

_LIMITS: Mapping[str, Mapping[str, int]] = {
    "RunPodSandbox": _POD_LIMITS,
    "CreateContainer": {
        "config.metadata.name": _NAME,
        "config.image.image": _IMAGE,
        "config.image.user_specified_image": _IMAGE,
    },
    "ImageStatus": _IMAGE_LIMITS,
    "PullImage": _IMAGE_LIMITS,
    "RemoveImage": _IMAGE_LIMITS,
    "ListImages": {f"filter.{field}": limit for field, limit in _IMAGE_LIMITS.items()},
}

_FILTER_IDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("ListPodSandbox", "ListPodSandboxStats", "StreamPodSandboxes", "StreamPodSandboxStats"),
        ("filter.id",),
    ),
    **dict.fromkeys(
        ("ListContainers", "ListContainerStats", "StreamContainers", "StreamContainerStats"),
        ("filter.id", "filter.pod_sandbox_id"),
    ),
}


def wants_check(method: Method) -> bool:
    """Return whether a request of this method has anything to check; others are forwarded unparsed."""
    return method.name in _LIMITS or method.name in _FILTER_IDS or method.id_field is not None


def parse(method: Method, raw: bytes) -> Any:
    """Return the parsed request. InvalidArgument names the field that is invalid."""
    request = parsed(method.name, method.request, raw)
    for path, limit in _LIMITS.get(method.name, {}).items():
        _check_length(path, attrgetter(path)(request), limit)
    if method.id_field is not None:
        ids.check_id(getattr(request, method.id_field), method.id_field)
    for path in _FILTER_IDS.get(method.name, ()):
        if wanted := attrgetter(path)(request):
            ids.check_id(wanted, path)
    return request


def parsed(name: str, kind: type[Message], raw: bytes) -> Any:
    """Return the parsed request. InvalidArgument names the call."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidArgument(
            f"{name}: the request is not a valid protobuf message, or a string in it is not UTF-8"
        ) from error


def _check_length(path: str, text: str, limit: int) -> None:
    size = len(text.encode())
    if size > limit:
        raise InvalidArgument(f"{path} has {size} bytes, at most {limit} are allowed")
