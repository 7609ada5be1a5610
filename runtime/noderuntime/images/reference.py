"""Parses image references: the registry, the repository, and a tag or digest.

The grammar is that of the distribution project's references, with Docker's defaults for the host,
``library/`` and ``latest``, as every CRI client expects. It is narrower only where a connection would be
impossible: ports are at most 65535, host names obey the limits of DNS, and brackets contain an IPv6
address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from noderuntime.core.errors import InvalidArgument

DOCKER = "docker.io"
"""The registry of names without one, unless others are configured."""

DOCKER_SERVER = "registry-1.docker.io"
"""The server of that registry."""

_DOCKER_NAMES = frozenset({DOCKER, "index.docker.io", DOCKER_SERVER})

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(
    rf"(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)|\[(?P<ipv6>[0-9a-fA-F:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")

_LENGTH_LIMIT = 1024
_HOST_LIMIT = 253
_NAME_LIMIT = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """A full image name. Created by :func:`parse` only, so that every part is well-formed."""

    registry: str
    """Host and port as in the pod's spec, such as ``docker.io`` or ``[::1]:5000``."""
    repository: str
    tag: str
    """Empty only if there is a digest."""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def stored(self) -> str:
        """The name in the store. A tag is dropped if there is a digest, which identifies the image."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}@{self.digest}" if self.digest else f"{self.name}{tag}"


def parse(text: str, registry: str = DOCKER) -> Reference:
    """Parse a tag, a digest or both. ``registry`` is the default for names without one.

    InvalidArgument, in one line, if the text is not a reference or is an image ID.
    """
    if len(text) > _LENGTH_LIMIT:
        raise InvalidArgument(f"image reference of {len(text)} characters is too long")
    rest, at, digest = text.partition("@")
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag or tag.endswith("]"):
        path, colon, tag = rest, "", ""
    host, path = _split_host(path, registry)
    well_formed = (
        _is_host(host)
        and _PATH.fullmatch(path)
        and len(path) <= _NAME_LIMIT
        and not _ID.fullmatch(text)
        and (not colon or _TAG.fullmatch(tag))
        and (not at or _DIGEST.fullmatch(digest))
    )
    if not well_formed:
        shown = text[:80].encode("unicode_escape").decode("ascii")
        raise InvalidArgument(f"image reference {shown!r} is invalid")
    return Reference(host, path, tag or ("" if digest else "latest"), digest)


def candidates(text: str, search: Iterable[str] = (DOCKER,)) -> tuple[Reference, ...]:
    """Return the possible full references, best first: itself, or a short name in each registry.

    InvalidArgument for a short name if ``search`` is empty.
    """
    found = tuple(dict.fromkeys(parse(text, registry) for registry in search))
    if found:
        return found
    reference = parse(text)
    if is_short(text):
        raise InvalidArgument(
            f"image reference {text!r} has no registry, and none is configured for short names"
        )
    return (reference,)


def is_short(text: str) -> bool:
    """Return whether a reference has no registry."""
    first, slash, _ = text.partition("/")
    return not (slash and _names_registry(first))


def image_id(text: str) -> str:
    """Return ``sha256:…`` for an image ID with or without the prefix, and "" for other texts."""
    matched = _ID.fullmatch(text)
    return f"sha256:{matched.group(1)}" if matched else ""


def stored_name(text: str) -> str:
    """Return the name of an image ID, tag or digest in the store.

    InvalidArgument if the text is none of these.
    """
    return image_id(text) or parse(text).stored


def digest_of(digests: Sequence[str], name: str) -> str:
    """Return the one of an image's repo digests that belongs to a name, or else the first; empty if none."""
    try:
        wanted = parse(name)
    except InvalidArgument:  # an image ID
        return next(iter(digests), "")
    of_repository = [digest for digest in digests if digest.startswith(f"{wanted.name}@")]
    exact = [digest for digest in of_repository if digest == wanted.stored]
    return next(iter((*exact, *of_repository, *digests)), "")


def name_of(names: Iterable[str], requested: str) -> str:
    """Return the one of an image's tags and digests that was requested, or else the first; empty if none.

    A requested name without a registry is that of any registry.
    """
    known = tuple(names)
    return next((name for name in known if _is_name(requested, name)), next(iter(known), ""))


def _is_name(requested: str, name: str) -> bool:
    try:
        return parse(requested, parse(name).registry).stored == name
    except InvalidArgument:  # an image ID
        return False


def same_registry(address: str, registry: str) -> bool:
    """Return whether a server address, with or without scheme and path, is that of a registry."""
    host = (address.partition("://")[2] or address).partition("/")[0].lower()
    registry = registry.lower()
    return host == registry or (host in _DOCKER_NAMES and registry in _DOCKER_NAMES)


def _is_host(host: str) -> bool:
    matched = _HOST.fullmatch(host)
    if matched is None or int(matched["port"] or 1) not in range(1, 65536):
        return False
    if len(matched["name"] or "") > _HOST_LIMIT:
        return False
    try:
        return matched["ipv6"] is None or bool(ipaddress.IPv6Address(matched["ipv6"]))
    except ValueError:
        return False


def _split_host(path: str, registry: str) -> tuple[str, str]:
    """Return registry and repository. A registry has a dot, a port or an uppercase letter or is localhost."""
    host, slash, rest = path.partition("/")
    if slash and _names_registry(host):
        return _with_library(DOCKER if host == "index.docker.io" else host, rest)
    return _with_library(registry, path)


def _names_registry(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _with_library(host: str, path: str) -> tuple[str, str]:
    return host, f"library/{path}" if host == DOCKER and "/" not in path else path
