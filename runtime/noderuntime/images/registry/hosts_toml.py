"""containerd's ``hosts.toml``: the servers of one registry.

    server = "https://registry.example"          the registry itself, tried last
    [host."https://mirror.example"]              tried first, in the order of the file
      capabilities = ["pull", "resolve"]

An invalid file is an error; containerd ignores it. The file can be what keeps pulls inside a private
network.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from noderuntime.core.errors import first_problem
from noderuntime.images.reference import same_registry
from noderuntime.images.registry.endpoints import (
    DIAL_SECONDS,
    EVERYTHING,
    Capability,
    RegistryHost,
    Tls,
    default_host,
    is_authority,
)

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PATH = re.compile(r"[\x21-\x7e]*")


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class _HostTable(BaseModel):
    """Settings of one server. Unknown keys are ignored, they belong to other tools."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    capabilities: list[Annotated[Capability, BeforeValidator(_lowered)]] = []
    ca: str | list[str] = []
    client: str | list[str | Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    skip_verify: bool | None = None
    header: dict[str, str | list[str]] = {}
    override_path: bool = False
    dial_timeout: str = ""
    proxy: str = ""


class _File(_HostTable):
    server: str = ""
    host: dict[str, _HostTable] = {}


def parse(text: bytes, directory: Path, registry: str) -> tuple[RegistryHost, ...]:
    """Return the servers of a registry, in the order to try them. ValueError, in one line, if invalid."""
    try:
        settings = _File.model_validate(tomllib.loads(text.decode()))
        mirrors = [_host(url, table, directory) for url, table in settings.host.items()]
        server = _server(settings, directory, registry)
    except ValidationError as error:
        raise ValueError(_line(first_problem(error))) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(_line(str(error))) from error
    return (
        *(replace(mirror, is_registry=same_registry(mirror.authority, registry)) for mirror in mirrors),
        server,
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _server(settings: _File, directory: Path, registry: str) -> RegistryHost:
    if settings.server:
        return _host(settings.server, settings, directory)
    return replace(
        default_host(registry, _tls(settings, directory), explicit=_has_tls(settings)),
        headers=_headers(settings.header),
        dial_seconds=_seconds(settings.dial_timeout),
        proxy=_proxy(settings.proxy),
    )


def _host(url: str, table: _HostTable, directory: Path) -> RegistryHost:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    path = re.sub("/+", "/", parts.path).rstrip("/")
    if parts.scheme not in {"http", "https"} or not is_authority(parts.netloc) or not _PATH.fullmatch(path):
        shown = re.sub("//.*@", "//", url)[:100]
        raise ValueError(f"{shown!a} is not the URL of a registry")
    if not table.override_path and not path.endswith("/v2"):
        path += "/v2"
    tries_tls = parts.scheme == "http" and _has_tls(table) and parts.port != 80
    return RegistryHost(
        scheme="https" if tries_tls or parts.scheme == "https" else "http",
        authority=parts.netloc,
        path=path,
        capabilities=frozenset(table.capabilities) or EVERYTHING,
        tls=_tls(table, directory),
        headers=_headers(table.header),
        dial_seconds=_seconds(table.dial_timeout),
        proxy=_proxy(table.proxy),
        may_be_plain=tries_tls,
    )


def _has_tls(table: _HostTable) -> bool:
    return bool(table.ca or table.client) or table.skip_verify is not None


def _tls(table: _HostTable, directory: Path) -> Tls:
    authorities = [table.ca] if isinstance(table.ca, str) else table.ca
    clients: list[Any] = [table.client] if isinstance(table.client, str) else table.client
    pairs = [(client, "") if isinstance(client, str) else (client[0], client[1]) for client in clients]
    return Tls(
        ca=tuple(directory / name for name in authorities),
        client=tuple((directory / cert, directory / key if key else None) for cert, key in pairs),
        skip_verify=bool(table.skip_verify),
    )


def _headers(table: dict[str, str | list[str]]) -> tuple[tuple[str, str], ...]:
    found = []
    for name, values in table.items():
        for value in [values] if isinstance(values, str) else values:
            if not _TOKEN.fullmatch(name) or not value.isprintable():
                raise ValueError(f"header {name[:50]!a} is invalid")
            found.append((name, value))
    return tuple(found)


def _proxy(url: str) -> str:
    parts = urlsplit(url)
    if url and not (parts.scheme in {"http", "https"} and is_authority(parts.netloc.rpartition("@")[2])):
        raise ValueError("proxy is not the URL of an HTTP proxy")
    return url


def _seconds(duration: str) -> float:
    """Return the seconds of a Go duration, such as ``1m30s``."""
    if not duration:
        return DIAL_SECONDS
    steps = _DURATION.findall(duration)
    if "".join(number + unit for number, unit in steps) != duration:
        raise ValueError(f"duration {duration[:50]!a} is invalid (example: 10s)")
    return sum(float(number) * _UNITS[unit] for number, unit in steps)
