"""Device nodes of a container, and the cgroup rules that allow access to devices."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.validation import check_absolute, quoted

Device = dict[str, Any]
Rule = dict[str, Any]

_DENY_ALL: Rule = {"allow": False, "access": "rwm"}
_ALLOW_ALL: Rule = {"allow": True, "access": "rwm"}

# Every container has its own.
_OWN = frozenset(("pts", "shm", "fd", "mqueue", "console", ".udev"))


class Devices(NamedTuple):
    """The device-related parts of an OCI spec."""

    nodes: list[Device]
    """``linux.devices``"""
    rules: list[Rule]
    """``linux.resources.devices``"""
    mounts: list[dict[str, Any]]
    """``mounts`` of devices whose nodes cannot be created: in a user namespace, a runtime bind-mounts the
    node's device from the same path, so a device at another path needs a mount of its own."""


def container_devices(config: api_pb2.ContainerConfig, *, can_mknod: bool = True) -> Devices:
    """Return the devices of a container. ``can_mknod`` is false in a user namespace.

    The runtime adds standard devices such as /dev/null. A privileged container gets all devices of the node.
    """
    nodes: dict[str, Device] = {}
    mounts: dict[str, dict[str, Any]] = {}
    privileged = config.linux.security_context.privileged
    rules = [_ALLOW_ALL if privileged else _DENY_ALL]
    if privileged:
        nodes.update((device["path"], device) for _, device in _devices_below("/dev", "/dev", skip=_OWN))
    for requested in config.devices:
        access = _access(requested)
        for source, device in _requested_devices(requested):
            path = device["path"]
            if can_mknod or source == path:
                nodes[path] = device
            else:
                mounts[path] = device_bind_mount(source, path)
            if not privileged:
                rules.append(_rule(device, access))
    return Devices(list(nodes.values()), rules, list(mounts.values()))


def device_bind_mount(source: str, destination: str) -> dict[str, Any]:
    """Return the OCI bind mount of a device of the node."""
    options = ["bind", "nosuid", "noexec"]
    return {"destination": destination, "type": "bind", "source": source, "options": options}


def _requested_devices(requested: api_pb2.Device) -> Iterable[tuple[str, Device]]:
    """Return (host path, device) for the requested device, or for all devices below a requested directory."""
    source = os.path.realpath(check_absolute(requested.host_path, "a device's host_path"))
    path = check_absolute(requested.container_path or requested.host_path, "a device's container_path")
    try:
        if os.path.isdir(source):
            return list(_devices_below(source, path))
        device = _device(source, path)
    except OSError as error:
        raise invalid_argument(f"device {quoted(requested.host_path)}", error) from error
    if device is None:
        raise InvalidArgument(f"{quoted(requested.host_path)} is not a device")
    return [(source, device)]


def _access(requested: api_pb2.Device) -> str:
    access = requested.permissions or "rwm"
    if set(access) - set("rwm"):
        raise InvalidArgument(f"device permissions {quoted(access)} are invalid (must consist of r, w, m)")
    return access


def _devices_below(
    directory: str, path: str, skip: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Device]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in skip or entry.is_symlink():
                continue
            with suppress(OSError):  # a device can disappear at any time
                inner = posixpath.join(path, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield from _devices_below(entry.path, inner)
                elif device := _device(entry.path, inner):
                    yield entry.path, device


def _device(source: str, path: str) -> Device | None:
    found = os.lstat(source)
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        return None
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _rule(device: Device, access: str) -> Rule:
    return {"allow": True, "access": access} | {key: device[key] for key in ("type", "major", "minor")}
