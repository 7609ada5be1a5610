"""Parses index, manifest and config (OCI image spec), which are untrusted.

Their authors can be hostile: readers limit their size, types are checked here, and a
violation is InvalidArgument in one line.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

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
_STRINGS_LIMIT = 10_000
_VALUES_LIMIT = 300_000
"""Values in a document; each takes a hundred bytes of memory, however short its JSON."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
_Strings = Annotated[list[str], Field(max_length=_STRINGS_LIMIT)]


class Document(BaseModel):
    """The base of all documents: types are strict, unknown keys are ignored, null is as no key.

    Builders write null for an empty list, because Go does.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None}


class Platform(Document):
    """The platform of a manifest."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(Document):
    """A reference to another blob (OCI image spec, descriptor.md)."""

    media_type: str = Field(default="", alias="mediaType")
    digest: Digest
    size: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    platform: Platform | None = None


class Index(Document):
    """An image for several platforms."""

    manifests: Annotated[list[Descriptor], Field(max_length=_STRINGS_LIMIT)] = []


class Manifest(Document):
    """An image for one platform. Its layers are needed to unpack only (see :class:`Layers`)."""

    config: Descriptor


class Layers(Document):
    """The layers of a manifest, bottom first."""

    layers: Annotated[list[Descriptor], Field(max_length=LAYERS_LIMIT)] = []


class _Defaults(Document):
    env: _Strings = Field(default=[], alias="Env")
    entrypoint: _Strings = Field(default=[], alias="Entrypoint")
    cmd: _Strings = Field(default=[], alias="Cmd")
    working_dir: str = Field(default="", alias="WorkingDir")
    user: str = Field(default="", alias="User")
    stop_signal: str = Field(default="", alias="StopSignal")
    volumes: dict[str, object] = Field(default={}, alias="Volumes")


class _RootFs(Document):
    diff_ids: Annotated[list[Digest], Field(max_length=LAYERS_LIMIT)] = []


class Config(Document):
    """An image's config: the defaults of its containers, and its layers' uncompressed digests."""

    defaults: _Defaults = Field(default=_Defaults(), alias="config")
    rootfs: _RootFs = _RootFs()


D = TypeVar("D", bound=Document)


def read(kind: type[D], raw: bytes) -> D:
    """Parse one of the documents above. InvalidArgument names the first invalid field."""
    if has_too_many_values(raw):
        raise InvalidArgument(f"image {kind.__name__.lower()}: more than {_VALUES_LIMIT} values")
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidArgument(f"image {kind.__name__.lower()}: {first_problem(error)}") from error


def has_too_many_values(raw: bytes) -> bool:
    """Return whether a document can have more values than allowed, without parsing it."""
    return sum(raw.count(mark) for mark in (b"{", b"[", b",")) > _VALUES_LIMIT


def container_defaults(config: Config) -> ImageConfig:
    """Return the defaults for containers."""
    given = config.defaults
    return ImageConfig(
        env=tuple(given.env),
        entrypoint=tuple(given.entrypoint),
        cmd=tuple(given.cmd),
        working_dir=given.working_dir,
        user=given.user,
        stop_signal=given.stop_signal,
        volumes=tuple(given.volumes),
    )


def chain_id(diff_ids: Iterable[str]) -> str:
    """Return the chain ID of a stack of layers (OCI image spec, Layer ChainID); empty for no layers."""
    chain = ""
    for diff_id in diff_ids:
        chain = chain_above(chain, diff_id)
    return chain


def chain_above(chain: str, diff_id: str) -> str:
    """Return the chain ID of a stack of layers with one more on top."""
    return f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id


def by_preference(index: Index, machine: str | None = None) -> list[Descriptor]:
    """Return the entries that can run on this machine, best first: manifests, and indexes of them.

    ``machine`` is the machine of uname(2). Entries without a platform are last.
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
    """Return architecture and variant in the notation of the table below."""
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
"""Aliases of architectures, and default variants."""

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
"""Platforms that a machine can run, in the order in which containerd prefers them."""
