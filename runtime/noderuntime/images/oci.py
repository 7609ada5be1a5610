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

from noderuntime.core.errors import InvalidArgument, first_problem
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

LAYERS_LIMIT = 500
_WORDS_LIMIT = 10_000
_PARTS_LIMIT = 300_000
"""Values in a document; each takes a hundred bytes of memory, however short it is written."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
_Words = Annotated[list[str], Field(max_length=_WORDS_LIMIT)]


class Document(BaseModel):
    """What all of them have in common: types are what they should be, unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


class Platform(Document):
    """Which machines a manifest is for."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(Document):
    """A blob that another one points at."""

    media_type: str = Field(default="", alias="mediaType")
    digest: Digest
    size: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    platform: Platform | None = None


class Index(Document):
    """One image for several platforms."""

    manifests: Annotated[list[Descriptor], Field(max_length=_WORDS_LIMIT)]


class Manifest(Document):
    """One image for one platform; its layers are of no interest once unpacked (see :class:`Layers`)."""

    config: Descriptor


class Layers(Document):
    """The rest of a manifest: the layers as they are stored, bottom first."""

    layers: Annotated[list[Descriptor], Field(max_length=LAYERS_LIMIT)]


class _Defaults(Document):
    env: _Words | None = Field(default=None, alias="Env")
    entrypoint: _Words | None = Field(default=None, alias="Entrypoint")
    cmd: _Words | None = Field(default=None, alias="Cmd")
    working_dir: str | None = Field(default=None, alias="WorkingDir")
    user: str | None = Field(default=None, alias="User")
    stop_signal: str | None = Field(default=None, alias="StopSignal")
    volumes: dict[str, object] | None = Field(default=None, alias="Volumes")


class _RootFs(Document):
    diff_ids: Annotated[list[Digest], Field(max_length=LAYERS_LIMIT)] = []


class Config(Document):
    """An image's config: defaults for its containers, and its layers' digests when unpacked."""

    defaults: _Defaults | None = Field(default=None, alias="config")
    rootfs: _RootFs = _RootFs()


D = TypeVar("D", bound=Document)


def read(kind: type[D], raw: bytes) -> D:
    """Parse one of the documents above; InvalidArgument says where it is wrong."""
    if is_crowded(raw):
        raise InvalidArgument(f"image {kind.__name__.lower()}: more than {_PARTS_LIMIT} values")
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidArgument(f"image {kind.__name__.lower()}: {first_problem(error)}") from error


def is_crowded(raw: bytes) -> bool:
    """Tell, without parsing, whether a document may have more values than any good one has."""
    return sum(raw.count(mark) for mark in (b"{", b"[", b",")) > _PARTS_LIMIT


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
        chain = chain_above(chain, diff_id)
    return chain


def chain_above(chain: str, diff_id: str) -> str:
    """Name a stack of layers with one more on top."""
    return f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id


def by_preference(index: Index, machine: str | None = None) -> list[Descriptor]:
    """List what may run on this machine, best first: manifests, and indexes that may have one.

    ``machine`` is named as uname(2) names it. Entries that name no platform come last.
    """
    order = _PLATFORMS.get(machine or platform.machine(), ())
    ranked = []
    for position, entry in enumerate(index.manifests):
        wanted = entry.platform
        if entry.media_type not in MANIFEST_TYPES | INDEX_TYPES:
            continue
        if wanted is None or not wanted.os:
            ranked.append((len(order), position, entry))
        elif wanted.os.lower() == "linux" and (named := _normal(wanted)) in order:
            ranked.append((order.index(named), position, entry))
    return [entry for *_, entry in sorted(ranked, key=lambda one: one[:2])]


def _normal(wanted: Platform) -> tuple[str, str]:
    """Spell architecture and variant in the one way that the table below knows."""
    architecture = wanted.architecture.lower()
    architecture, implied = _SPELLINGS.get(architecture, (architecture, ""))
    variant = wanted.variant.lower() or implied
    variant = f"v{variant}" if variant.isdigit() else variant
    return architecture, "" if (architecture, variant) in {("amd64", "v1"), ("arm64", "v8")} else variant


_SPELLINGS = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm": ("arm", "v7"),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
"""Architectures that are spelt otherwise, or whose variant goes without saying."""

_ARM = (("arm", "v7"), ("arm", "v6"), ("arm", "v5"))

_PLATFORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "x86_64": (("amd64", ""), ("386", "")),
    "aarch64": (("arm64", ""), ("arm", "v8"), *_ARM),
    "armv7l": _ARM,
    "armv6l": _ARM[1:],
    "ppc64le": (("ppc64le", ""),),
    "riscv64": (("riscv64", ""),),
    "s390x": (("s390x", ""),),
}
"""Platforms that a machine runs, best first, in the order in which containerd prefers them."""
