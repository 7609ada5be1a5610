"""One server that may have a registry's images, and how it is spoken to."""

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
    """Whom we trust beside the system's authorities, and who we are."""

    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    """Certificate and key; without a key both are in the first file."""
    skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class RegistryHost:
    """One server that may have a registry's images."""

    scheme: Literal["http", "https"]
    authority: str
    """Host and port as in a URL."""
    path: str = "/v2"
    """Root of the API, without a slash at the end."""
    capabilities: frozenset[Capability] = EVERYTHING
    tls: Tls = Tls()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dial_seconds: float = DIAL_SECONDS
    proxy: str = field(default="", repr=False)
    is_registry: bool = True
    """It stands for the registry itself, not for a mirror: a pull's credentials are for it."""
    may_be_plain: bool = False
    """TLS is tried first, but plain HTTP is what was asked for."""

    @property
    def allows_plain(self) -> bool:
        """Plain HTTP was configured, or it is this machine."""
        return self.scheme == "http" or self.may_be_plain

    def plain(self) -> RegistryHost:
        """Return the same without TLS."""
        return replace(self, scheme="http", may_be_plain=False)


def default_host(registry: str, tls: Tls, *, explicit: bool) -> RegistryHost:
    """Return the registry itself: TLS, except that this machine may be spoken to without.

    ``explicit`` says that somebody chose these settings, so that they hold for this machine too.
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
    """Tell whether a host and port is this machine, by its name alone."""
    host = urlsplit(f"//{authority}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_authority(text: str) -> bool:
    """Tell whether this is a host, or a host and a port, that can be asked."""
    matched = _AUTHORITY.fullmatch(text)
    return matched is not None and int(matched.group(1) or 1) in range(1, 65536)
