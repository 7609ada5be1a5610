"""Device nodes, and the rules by which the kernel lets them be used."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.words import absolute, shown

Device = dict[str, Any]
Rule = dict[str, Any]

_DENY_ALL: Rule = {"allow": False, "access": "rwm"}
_ALLOW_ALL: Rule = {"allow": True, "access": "rwm"}

# Every container has these of its own.
_OWN = frozenset(("pts", "shm", "fd", "mqueue", "console", ".udev"))


class Devices(NamedTuple):
    """What devices are in an OCI spec."""

    nodes: list[Device]
    """``linux.devices``"""
    rules: list[Rule]
    """``linux.resources.devices``"""
    mounts: list[dict[str, Any]]
    """``mounts`` of nodes that cannot be made: in a user namespace a runtime takes the node's own at the
    same place, so those of another place are mounted."""


def container_devices(config: api_pb2.ContainerConfig, *, makes_nodes: bool = True) -> Devices:
    """Return the devices of a container; ``makes_nodes`` tells whether the runtime can make their nodes.

    The runtime adds /dev/null and its kin. A privileged container sees every device of the node.
    """
    nodes: dict[str, Device] = {}
    mounts: dict[str, dict[str, Any]] = {}
    privileged = config.linux.security_context.privileged
    rules = [_ALLOW_ALL if privileged else _DENY_ALL]
    if privileged:
        nodes.update((one["path"], one) for _, one in _below("/dev", "/dev", skip=_OWN))
    for asked in config.devices:
        access = _access(asked)
        for source, device in _asked(asked):
            place = device["path"]
            if makes_nodes or source == place:
                nodes[place] = device
            else:
                mounts[place] = bound_device(source, place)
            if not privileged:
                rules.append(_rule(device, access))
    return Devices(list(nodes.values()), rules, list(mounts.values()))


def bound_device(source: str, place: str) -> dict[str, Any]:
    """Return the OCI mount of a device of the node at another place."""
    return {"destination": place, "type": "bind", "source": source, "options": ["bind", "nosuid", "noexec"]}


def _asked(asked: api_pb2.Device) -> Iterable[tuple[str, Device]]:
    """Return the device behind a host path, or all those below a directory, with where the node has them."""
    source = os.path.realpath(absolute(asked.host_path, "a device's host_path"))
    place = absolute(asked.container_path or asked.host_path, "a device's container_path")
    try:
        if os.path.isdir(source):
            return list(_below(source, place))
        device = _device(source, place)
    except OSError as error:
        raise invalid_argument(f"device {shown(asked.host_path)}", error) from error
    if device is None:
        raise InvalidArgument(f"{shown(asked.host_path)} is no device")
    return [(source, device)]


def _access(asked: api_pb2.Device) -> str:
    access = asked.permissions or "rwm"
    if set(access) - set("rwm"):
        raise InvalidArgument(f"device permissions {shown(access)} are not of 'r', 'w', 'm'")
    return access


def _below(directory: str, place: str, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, Device]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in skip or entry.is_symlink():
                continue
            with suppress(OSError):  # devices come and go
                there = posixpath.join(place, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path, there)
                elif device := _device(entry.path, there):
                    yield entry.path, device


def _device(path: str, place: str) -> Device | None:
    found = os.lstat(path)
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        return None
    return {
        "path": place,
        "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _rule(device: Device, access: str) -> Rule:
    return {"allow": True, "access": access} | {key: device[key] for key in ("type", "major", "minor")}
