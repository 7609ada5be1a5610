"""CDI's edits, made to an OCI spec. They look at devices and mounts of the node: call them in a thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from noderuntime.core.errors import FailedPrecondition
from noderuntime.node.spec.cdi.schema import DeviceNode, Edits, Hook, IntelRdt, Mount
from noderuntime.node.spec.devices import bound_device

Spec = dict[str, Any]

_BINDS = {"bind": "idmap", "rbind": "ridmap"}
_KINDS = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}


def apply(spec: Spec, edits: Sequence[Edits]) -> None:
    """Make the edits, one after the other; FailedPrecondition when the node lacks what they name."""
    for one in edits:
        _add_env(spec["process"], one.env)
        for node in one.device_nodes:
            _add_device(spec, node)
        for mount in one.mounts:
            _add_mount(spec, mount)
        for hook in one.hooks:
            spec.setdefault("hooks", {}).setdefault(hook.hook_name, []).append(_hook(hook))
        if one.intel_rdt is not None:
            spec["linux"]["intelRdt"] = _intel_rdt(one.intel_rdt)
        _add_groups(spec["process"]["user"], one.additional_gids)
    spec["mounts"].sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))


def _add_env(process: Spec, env: Sequence[str]) -> None:
    values = dict(one.split("=", 1) for one in (*process.get("env", ()), *env))
    process["env"] = [f"{name}={value}" for name, value in values.items()]


def _add_groups(user: Spec, gids: Sequence[int]) -> None:
    known = user.setdefault("additionalGids", [])
    known.extend(gid for gid in dict.fromkeys(gids) if gid and gid not in known)


def _add_device(spec: Spec, node: DeviceNode) -> None:
    linux, user = spec["linux"], spec["process"]["user"]
    device = _device(node)
    for name in ("uid", "gid"):
        wanted = getattr(node, name)
        if wanted is not None or user[name]:
            device[name] = user[name] if wanted is None else wanted
    others = [one for one in linux.get("devices", ()) if one["path"] != node.path]
    if _has_user_namespace(spec) and node.host_path not in (None, node.path):
        spec["mounts"].append(bound_device(str(node.host_path), node.path))
    else:
        linux["devices"] = [*others, device]
    if device["type"] in ("b", "c") and node.permissions != "none":
        rule = {"allow": True, "access": node.permissions or "rwm"}
        linux["resources"].setdefault("devices", []).append(
            rule | {key: device[key] for key in ("type", "major", "minor")}
        )


def _device(node: DeviceNode) -> Spec:
    """Say what a node is: as the file says, or as the node's device is where the file leaves it open."""
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
        raise FailedPrecondition(f"CDI device {source} is no device")
    return {"type": kind, "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


def _add_mount(spec: Spec, mount: Mount) -> None:
    """Add a mount in place of what else is mounted there; in a user namespace its IDs are mapped."""
    options = list(mount.options)
    maps = {_BINDS[one] for one in options if one in _BINDS} or ({"idmap"} if mount.type == "bind" else set())
    if maps and not os.path.exists(mount.host_path):
        raise FailedPrecondition(f"CDI mount: this node has no {mount.host_path}")
    if _has_user_namespace(spec) and not {"idmap", "ridmap"} & set(options):
        options += sorted(maps)
    made: Spec = {"destination": mount.container_path, "source": mount.host_path, "options": options}
    if mount.type is not None:
        made["type"] = mount.type
    spec["mounts"] = [one for one in spec["mounts"] if one["destination"] != mount.container_path] + [made]


def _has_user_namespace(spec: Spec) -> bool:
    return any(one["type"] == "user" for one in spec["linux"]["namespaces"])


def _hook(hook: Hook) -> Spec:
    made: Spec = {"path": hook.path, "args": hook.args, "env": hook.env}
    return made if hook.timeout is None else made | {"timeout": hook.timeout}


def _intel_rdt(rdt: IntelRdt) -> Spec:
    return rdt.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
