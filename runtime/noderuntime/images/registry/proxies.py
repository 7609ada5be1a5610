"""Selects the proxy of a request: the host's own, or that of the daemon's environment."""

from __future__ import annotations

import ipaddress
import os
import urllib.request

from yarl import URL

from noderuntime.images.registry.endpoints import RegistryHost, is_loopback


def proxy_of(host: RegistryHost, url: URL) -> str | None:
    """Return the proxy; ``http_proxy``, ``https_proxy`` and ``no_proxy`` apply to hosts without their own.

    Networks in ``no_proxy`` are supported, as in programs written in Go.
    """
    if host.proxy:
        return host.proxy
    name = url.host_port_subcomponent or ""
    if is_loopback(name) or urllib.request.proxy_bypass(name) or _in_network(url.host or ""):
        return None
    proxy = urllib.request.getproxies().get(url.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _in_network(host: str) -> bool:
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(_contains(entry.strip(), address) for entry in exempt.split(","))


def _contains(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return "/" in entry and address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
