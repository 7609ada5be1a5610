"""Checks manifests against their descriptors and the headers that came with them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noderuntime.core.errors import DataLoss, InvalidArgument, ResourceExhausted
from noderuntime.images import oci
from noderuntime.images.remote import Descriptor

if TYPE_CHECKING:  # imports the HTTP client, which archives do not need
    from noderuntime.images.registry.responses import Response

ACCEPTED = tuple(sorted(oci.MANIFEST_TYPES | oci.INDEX_TYPES))
"""The supported media types of manifests and indexes."""

_GENERIC = frozenset(
    {"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"}
)
"""Media types that servers send for files of unknown type."""

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class _Shape(BaseModel):
    """The keys that distinguish a manifest from an index."""

    model_config = ConfigDict(strict=True)

    media_type: str = Field(default="", alias="mediaType")
    manifests: object = None
    layers: object = None
    config: object = None


def descriptor_from_headers(response: Response) -> Descriptor | None:
    """Return the descriptor in the response to a HEAD request, or None if it is not complete.

    DataLoss if the response is not a manifest, InvalidArgument if it is one of Docker's schema 1.
    """
    media_type = _media_type(response)
    digest = response.http.headers.get("Docker-Content-Digest", "")
    size = response.http.content_length
    if media_type not in ACCEPTED or not _DIGEST.fullmatch(digest) or not size:
        return None
    return Descriptor(media_type, digest, size)


def descriptor_from_body(raw: bytes, response: Response) -> Descriptor:
    """Return the descriptor of a manifest whose headers were not sufficient."""
    media_type = _media_type(response)
    if media_type not in ACCEPTED:
        media_type = _shape(raw, response.origin).media_type
    check_type(raw, media_type, response.origin)
    return Descriptor(media_type, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw), raw)


def check_header(response: Response, media_type: str) -> None:
    """Raise DataLoss if the Content-Type differs from ``media_type``, which is empty for blobs."""
    found = response.http.content_type if "Content-Type" in response.http.headers else ""
    if found == "text/html" or (media_type and found not in _GENERIC and found != media_type):
        raise DataLoss(f"{response.origin}: sent {found[:80]!a} instead of {media_type or 'a blob'}")


def check_type(raw: bytes, media_type: str, where: str) -> None:
    """Raise an error if a manifest has another type than its descriptor, or keys of both types."""
    shape = _shape(raw, where)
    if media_type not in ACCEPTED:
        raise InvalidArgument(f"{where}: a manifest of type {media_type[:80]!a} is not supported")
    if shape.media_type not in {"", media_type}:
        raise DataLoss(f"{where}: a manifest of type {shape.media_type[:80]!a} was sent as {media_type}")
    foreign = [shape.layers, shape.config] if media_type in oci.INDEX_TYPES else [shape.manifests]
    if any(part is not None for part in foreign):
        raise DataLoss(f"{where}: a manifest has keys of both a manifest and an index")


def _media_type(response: Response) -> str:
    found = response.http.content_type if "Content-Type" in response.http.headers else ""
    if found.startswith(_SCHEMA_1):
        raise InvalidArgument(
            f"{response.origin}: has this image only in Docker's schema 1, which is not supported"
        )
    if found not in ACCEPTED and found not in _GENERIC:
        raise DataLoss(f"{response.origin}: sent {found[:80]!a} instead of a manifest")
    return found


def _shape(raw: bytes, where: str) -> _Shape:
    if oci.has_too_many_values(raw):
        raise ResourceExhausted(f"{where}: a manifest has too many values")
    try:
        return _Shape.model_validate_json(raw)
    except ValidationError as error:
        raise DataLoss(f"{where}: the manifest is not valid") from error
