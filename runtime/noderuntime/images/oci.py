"""What index, manifest and config say, read without trust.

Whoever made the image wrote these: sizes are capped by the reader, types are
checked here, and what is wrong becomes one line of InvalidArgument.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from noderuntime.errors import InvalidArgument
from noderuntime.images.base import ImageConfig

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)

_LAYERS_LIMIT = 500
_WORDS_LIMIT = 10_000

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
_Words = Annotated[list[str], Field(max_length=_WORDS_LIMIT)]


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Platform(_Document):
    """Which machines a manifest is for."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(_Document):
    """A blob that another one points at."""

    media_type: str = Field(default="", alias="mediaType")
    digest: Digest
    platform: Platform | None = None


class Index(_Document):
    """One image for several platforms."""

    manifests: Annotated[list[Descriptor], Field(max_length=_WORDS_LIMIT)]


class Manifest(_Document):
    """One image for one platform; its layers are of no interest once unpacked."""

    config: Descriptor


class _Defaults(_Document):
    env: _Words | None = Field(default=None, alias="Env")
    entrypoint: _Words | None = Field(default=None, alias="Entrypoint")
    cmd: _Words | None = Field(default=None, alias="Cmd")
    working_dir: str | None = Field(default=None, alias="WorkingDir")
    user: str | None = Field(default=None, alias="User")
    stop_signal: str | None = Field(default=None, alias="StopSignal")
    volumes: dict[str, object] | None = Field(default=None, alias="Volumes")


class _RootFs(_Document):
    diff_ids: Annotated[list[Digest], Field(max_length=_LAYERS_LIMIT)] = []


class Config(_Document):
    """An image's config: defaults for its containers, and its layers' digests when unpacked."""

    defaults: _Defaults | None = Field(default=None, alias="config")
    rootfs: _RootFs = _RootFs()


D = TypeVar("D", bound=_Document)


def read(kind: type[D], raw: bytes) -> D:
    """Parse one of the documents above; InvalidArgument says where it is wrong."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step)[:40] for step in first["loc"]) or "document"
        raise InvalidArgument(f"image {kind.__name__.lower()}: {where}: {first['msg'][:200]}") from error


def container_defaults(config: Config) -> ImageConfig:
    """Return the defaults that the layers above take."""
    given = config.defaults or _Defaults()
    return ImageConfig(
        env=tuple(given.env or ()),
        entrypoint=tuple(given.entrypoint or ()),
        cmd=tuple(given.cmd or ()),
        working_dir=given.working_dir or "",
        user=given.user or "",
        stop_signal=given.stop_signal or "",
        volumes=tuple(given.volumes or ()),
    )


def chain_id(diff_ids: Iterable[str]) -> str:
    """Name the stack of layers (OCI image spec, Layer ChainID); empty for no layers."""
    chain = ""
    for diff_id in diff_ids:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id
    return chain


def by_preference(index: Index, machine: str | None = None) -> list[Descriptor]:
    """List the manifests that run on this machine, best first; those that name no platform last."""
    order = _PLATFORMS.get(machine or platform.machine(), ())
    ranked = []
    for position, manifest in enumerate(index.manifests):
        wanted = manifest.platform
        if manifest.media_type in INDEX_TYPES:
            continue
        if wanted is None or not wanted.os:
            ranked.append((len(order), position, manifest))
        elif wanted.os == "linux" and (wanted.architecture, wanted.variant) in order:
            ranked.append((order.index((wanted.architecture, wanted.variant)), position, manifest))
    return [manifest for *_, manifest in sorted(ranked, key=lambda entry: entry[:2])]


_PLATFORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "x86_64": (("amd64", ""), ("amd64", "v1"), ("386", "")),
    "aarch64": (
        ("arm64", "v8"),
        ("arm64", ""),
        ("arm", "v8"),
        ("arm", "v7"),
        ("arm", ""),
        ("arm", "v6"),
        ("arm", "v5"),
    ),
    "armv7l": (("arm", "v7"), ("arm", ""), ("arm", "v6"), ("arm", "v5")),
    "ppc64le": (("ppc64le", ""),),
    "riscv64": (("riscv64", ""),),
    "s390x": (("s390x", ""),),
}
"""Platforms that a machine runs, best first, in the order in which containerd prefers them."""
