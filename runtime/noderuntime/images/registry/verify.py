"""What a host says a manifest is, held against what it is."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noderuntime.core.errors import DataLoss, InvalidArgument, ResourceExhausted
from noderuntime.images import oci
from noderuntime.images.remote import Descriptor

if TYPE_CHECKING:  # it brings the HTTP client along, which archives do without
    from noderuntime.images.registry.responses import Answer

ACCEPTED = tuple(sorted(oci.MANIFEST_TYPES | oci.INDEX_TYPES))
"""Media types of manifests and indexes that we understand."""

_GENERIC = frozenset(
    {"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"}
)
"""What servers say of files that they know nothing about."""

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class _Shape(BaseModel):
    """The keys that tell a manifest from an index."""

    model_config = ConfigDict(strict=True)

    media_type: str = Field(default="", alias="mediaType")
    manifests: object = None
    layers: object = None
    config: object = None


def promised(answer: Answer) -> Descriptor | None:
    """Read the headers of a HEAD request; None when only the manifest itself can tell.

    DataLoss when it is no manifest, InvalidArgument when it is one of Docker's schema 1.
    """
    media_type = _media_type(answer)
    digest = answer.response.headers.get("Docker-Content-Digest", "")
    size = answer.response.content_length
    if media_type not in ACCEPTED or not _DIGEST.fullmatch(digest) or not size:
        return None
    return Descriptor(media_type, digest, size)


def described(raw: bytes, answer: Answer) -> Descriptor:
    """Describe a manifest that came without a usable promise."""
    media_type = _media_type(answer)
    if media_type not in ACCEPTED:
        media_type = _shape(raw, answer.origin).media_type
    check_type(raw, media_type, answer.origin)
    return Descriptor(media_type, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw), raw)


def check_header(answer: Answer, media_type: str) -> None:
    """Refuse a body that is announced as something else; ``media_type`` is empty for blobs."""
    found = answer.response.content_type if "Content-Type" in answer.response.headers else ""
    if found == "text/html" or (media_type and found not in _GENERIC and found != media_type):
        raise DataLoss(f"{answer.origin}: sends {found[:80]!a} instead of {media_type or 'a blob'}")


def check_type(raw: bytes, media_type: str, where: str) -> None:
    """Refuse a manifest that is of another type than said, or could be taken for two."""
    shape = _shape(raw, where)
    if media_type not in ACCEPTED:
        raise InvalidArgument(f"{where}: a manifest of type {media_type[:80]!a} is not supported")
    if shape.media_type not in {"", media_type}:
        raise DataLoss(f"{where}: a manifest of type {shape.media_type[:80]!a} is passed off as {media_type}")
    foreign = [shape.layers, shape.config] if media_type in oci.INDEX_TYPES else [shape.manifests]
    if any(part is not None for part in foreign):
        raise DataLoss(f"{where}: a manifest that could be taken for an index, or the other way round")


def _media_type(answer: Answer) -> str:
    found = answer.response.content_type if "Content-Type" in answer.response.headers else ""
    if found.startswith(_SCHEMA_1):
        raise InvalidArgument(
            f"{answer.origin}: has this image in Docker's schema 1 only, which is not supported"
        )
    if found not in ACCEPTED and found not in _GENERIC:
        raise DataLoss(f"{answer.origin}: answers with {found[:80]!a} instead of a manifest")
    return found


def _shape(raw: bytes, where: str) -> _Shape:
    if oci.is_crowded(raw):
        raise ResourceExhausted(f"{where}: a manifest with more values than any has")
    try:
        return _Shape.model_validate_json(raw)
    except ValidationError as error:
        raise DataLoss(f"{where}: what should be a manifest is not one") from error
