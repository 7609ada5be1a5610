"""A server of a registry's images, and how to connect to it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from noderuntime.images.reference import DOCKER, DOCKER_SERVER

Capability = Literal["pull", "resolve", "push", "referrers"]

EVERYTHING: frozenset[Capability] = frozenset({"pull", "resolve", "push", "referrers"})
DIAL_SECONDS = 30.0

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?"
_AUTHORITY = re.compile(rf"(?:{_NAME}|\[[0-9A-Fa-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?")


@dataclass(frozen=True, slots=True)
class Tls:
    """CA certificates beside the system's, and client certificates."""

    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    """Certificate and key; without a key both are in the first file."""
    skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class RegistryHost:
    """One server of a registry's images: the registry itself or a mirror."""

    scheme: Literal["http", "https"]
    authority: str
    """Host and port as in a URL."""
    path: str = "/v2"
    """Root of the API, without a trailing slash."""
    capabilities: frozenset[Capability] = EVERYTHING
    tls: Tls = Tls()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dial_seconds: float = DIAL_SECONDS
    proxy: str = field(default="", repr=False)
    is_registry: bool = True
    """Whether this is the registry itself, not a mirror: it gets the credentials of a pull."""
    may_be_plain: bool = False
    """Whether plain HTTP is used if TLS fails."""

    @property
    def allows_plain(self) -> bool:
        """Whether plain HTTP was configured, or the server is on this machine."""
        return self.scheme == "http" or self.may_be_plain

    def plain(self) -> RegistryHost:
        """Return the same server over plain HTTP."""
        return replace(self, scheme="http", may_be_plain=False)


def default_host(registry: str, tls: Tls, *, explicit: bool) -> RegistryHost:
    """Return the settings of a registry without any in a file: TLS, with plain HTTP allowed on loopback.

    ``explicit`` means that ``tls`` was configured, so that it holds for loopback too.
    """
    if registry == DOCKER:
        return RegistryHost("https", DOCKER_SERVER, tls=tls)
    port = urlsplit(f"//{registry}").port
    if not is_loopback(registry) or port in {None, 443}:
        return RegistryHost("https", registry, tls=tls)
    if port == 80:
        return RegistryHost("http", registry, tls=tls)
    return RegistryHost("https", registry, tls=tls if explicit else Tls(skip_verify=True), may_be_plain=True)


def is_loopback(authority: str) -> bool:
    """Return whether a host and port is on this machine, by its name alone."""
    host = urlsplit(f"//{authority}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_authority(text: str) -> bool:
    """Return whether a text is a valid host, or host and port."""
    matched = _AUTHORITY.fullmatch(text)
    return matched is not None and int(matched.group(1) or 1) in range(1, 65536)
