"""Application of CDI edits to an OCI spec. The functions access devices and mounts of the node and block."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from noderuntime.core.errors import FailedPrecondition
from noderuntime.node.spec.cdi.schema import DeviceNode, Edits, Hook, IntelRdt, Mount
from noderuntime.node.spec.devices import device_bind_mount

Spec = dict[str, Any]

_BINDS = {"bind": "idmap", "rbind": "ridmap"}
_KINDS = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}


def apply(spec: Spec, edits: Sequence[Edits]) -> None:
    """Apply the edits in order. FailedPrecondition if a device or mount source does not exist on the node."""
    for edit in edits:
        _add_env(spec["process"], edit.env)
        for node in edit.device_nodes:
            _add_device(spec, node)
        for mount in edit.mounts:
            _add_mount(spec, mount)
        for hook in edit.hooks:
            spec.setdefault("hooks", {}).setdefault(hook.hook_name, []).append(_hook(hook))
        if edit.intel_rdt is not None:
            spec["linux"]["intelRdt"] = _intel_rdt(edit.intel_rdt)
        _add_groups(spec["process"]["user"], edit.additional_gids)
    spec["mounts"].sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))


def _add_env(process: Spec, env: Sequence[str]) -> None:
    values = dict(variable.split("=", 1) for variable in (*process.get("env", ()), *env))
    process["env"] = [f"{name}={value}" for name, value in values.items()]


def _add_groups(user: Spec, gids: Sequence[int]) -> None:
    known = user.setdefault("additionalGids", [])
    known.extend(gid for gid in dict.fromkeys(gids) if gid and gid not in known)


def _add_device(spec: Spec, node: DeviceNode) -> None:
    linux, user = spec["linux"], spec["process"]["user"]
    device = _device(node)
    for name in ("uid", "gid"):
        owner = getattr(node, name)
        if owner is not None or user[name]:
            device[name] = user[name] if owner is None else owner
    others = [other for other in linux.get("devices", ()) if other["path"] != node.path]
    if _has_user_namespace(spec) and node.host_path not in (None, node.path):
        spec["mounts"].append(device_bind_mount(str(node.host_path), node.path))
    else:
        linux["devices"] = [*others, device]
    if device["type"] in ("b", "c") and node.permissions != "none":
        rule = {"allow": True, "access": node.permissions or "rwm"}
        linux["resources"].setdefault("devices", []).append(
            rule | {key: device[key] for key in ("type", "major", "minor")}
        )


def _device(node: DeviceNode) -> Spec:
    """Return the OCI device. Fields that the file does not set are those of the device on the node."""
    source = node.host_path or node.path
    complete = node.type == "p" or (node.type is not None and node.major != 0)
    try:
        found = os.stat(source, follow_symlinks=False)
    except OSError as error:
        if not complete:
            raise FailedPrecondition(f"CDI device {source}: {error.strerror}") from error
        found = None
    device: Spec = {"path": node.path, "type": node.type, "major": node.major, "minor": node.minor}
    if not complete and found is not None:
        device |= _identity(source, found)
        if node.type not in (None, device["type"]):
            raise FailedPrecondition(f"CDI device {source} is not of type {node.type}")
    mode = stat.S_IMODE(found.st_mode) if node.file_mode is None and found else node.file_mode
    return device if mode is None else device | {"fileMode": mode}


def _identity(source: str, found: os.stat_result) -> Spec:
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        raise FailedPrecondition(f"CDI device {source} is not a device")
    return {"type": kind, "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


def _add_mount(spec: Spec, mount: Mount) -> None:
    """Add a mount, replacing another at the same path. In a user namespace its IDs are mapped."""
    options = list(mount.options)
    maps = {_BINDS[option] for option in options if option in _BINDS}
    maps = maps or ({"idmap"} if mount.type == "bind" else set())
    if maps and not os.path.exists(mount.host_path):
        raise FailedPrecondition(f"CDI mount source {mount.host_path} does not exist on this node")
    if _has_user_namespace(spec) and not {"idmap", "ridmap"} & set(options):
        options += sorted(maps)
    made: Spec = {"destination": mount.container_path, "source": mount.host_path, "options": options}
    if mount.type is not None:
        made["type"] = mount.type
    others = [other for other in spec["mounts"] if other["destination"] != mount.container_path]
    spec["mounts"] = [*others, made]


def _has_user_namespace(spec: Spec) -> bool:
    return any(namespace["type"] == "user" for namespace in spec["linux"]["namespaces"])


def _hook(hook: Hook) -> Spec:
    made: Spec = {"path": hook.path, "args": hook.args, "env": hook.env}
    return made if hook.timeout is None else made | {"timeout": hook.timeout}


def _intel_rdt(rdt: IntelRdt) -> Spec:
    return rdt.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
