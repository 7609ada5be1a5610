"""Device nodes, and the rules by which the kernel lets them be used."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from noderuntime.cri.v1 import api_pb2
from noderuntime.errors import InvalidArgument
from noderuntime.spec.text import absolute, shown

Device = dict[str, Any]
Rule = dict[str, Any]

_DENY_ALL: Rule = {"allow": False, "access": "rwm"}
_ALLOW_ALL: Rule = {"allow": True, "access": "rwm"}

# Every container has these of its own.
_OWN = frozenset(("pts", "shm", "fd", "mqueue", "console", ".udev"))


def container_devices(config: api_pb2.ContainerConfig) -> tuple[list[Device], list[Rule]]:
    """Return OCI ``linux.devices`` and ``linux.resources.devices``.

    The runtime adds /dev/null and its kin. A privileged container sees every device of the node.
    """
    devices: dict[str, Device] = {}
    if config.linux.security_context.privileged:
        rules = [_ALLOW_ALL]
        devices.update((one["path"], one) for one in _below("/dev", "/dev", skip=_OWN))
    else:
        rules = [_DENY_ALL]
    for asked in config.devices:
        access = _access(asked)
        for device in _asked(asked):
            devices[device["path"]] = device
            if not config.linux.security_context.privileged:
                rules.append(_rule(device, access))
    return list(devices.values()), rules


def _asked(asked: api_pb2.Device) -> Iterable[Device]:
    """Return the device behind a host path, or all those below a directory."""
    source = os.path.realpath(absolute(asked.host_path, "a device's host_path"))
    place = absolute(asked.container_path or asked.host_path, "a device's container_path")
    try:
        if os.path.isdir(source):
            return list(_below(source, place))
        device = _device(source, place)
    except OSError as error:
        raise InvalidArgument(f"device {shown(asked.host_path)}: {error.strerror}") from error
    if device is None:
        raise InvalidArgument(f"{shown(asked.host_path)} is no device")
    return [device]


def _access(asked: api_pb2.Device) -> str:
    access = asked.permissions or "rwm"
    if set(access) - set("rwm"):
        raise InvalidArgument(f"device permissions {shown(access)} are not of 'r', 'w', 'm'")
    return access


def _below(directory: str, place: str, skip: frozenset[str] = frozenset()) -> Iterator[Device]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in skip or entry.is_symlink():
                continue
            with suppress(OSError):  # devices come and go
                there = posixpath.join(place, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path, there)
                elif device := _device(entry.path, there):
                    yield device


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
