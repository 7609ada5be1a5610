"""Addresses in a network namespace, verified with ip(8)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError
from noderuntime.node.host.linux import LinuxHost

ADDRESSES = ("10.212.0.2/24", "fd00:212::2/64")


@pytest.fixture
def host() -> LinuxHost:
    return LinuxHost()


@pytest.fixture
async def netns(host: LinuxHost, tmp_path: Path) -> AsyncIterator[Path]:
    pin = tmp_path / "netns"
    await host.pin_namespaces({"net": pin})
    yield pin
    await host.unpin_namespaces([pin])


def _ip(netns: Path, *argv: str) -> str:
    command = ["nsenter", f"--net={netns}", "ip", *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _addresses(netns: Path, interface: str) -> list[str]:
    [link] = json.loads(_ip(netns, "-j", "address", "show", "dev", interface))
    return [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]]


async def test_missing_addresses_are_added_to_the_interface(host: LinuxHost, netns: Path) -> None:
    _ip(netns, "link", "add", "eth0", "type", "veth")
    _ip(netns, "address", "add", ADDRESSES[0], "dev", "eth0")
    for _ in range(2):
        await host.add_addresses(netns, "eth0", [ip_interface(one) for one in ADDRESSES])
        assert _addresses(netns, "eth0") == list(ADDRESSES)


async def test_addresses_of_a_missing_interface_or_namespace(host: LinuxHost, netns: Path) -> None:
    await host.add_addresses(netns, "eth0", [ip_interface(ADDRESSES[0])])
    with pytest.raises(HostError, match="gone"):
        await host.add_addresses(netns.with_name("gone"), "eth0", [ip_interface(ADDRESSES[0])])
    _ip(netns, "link", "add", "eth0", "type", "veth")
    with pytest.raises(HostError, match="to eth0"):
        await host.add_addresses(netns, "eth0", [ip_interface("::/0")])
