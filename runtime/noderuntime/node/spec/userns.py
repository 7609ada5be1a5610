"""User namespaces: validation of CRI's options, and conversion to OCI ID mappings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import IdRange, UserNamespace

_ID_COUNT = 2**32 - 1
"""The number of valid IDs. The kernel reserves ID 2**32 - 1."""


def user_namespace(options: api_pb2.NamespaceOption, pin: Path) -> UserNamespace | None:
    """Return the user namespace that a pod or container requests, or None for the node's.

    InvalidArgument unless the mode is POD or NODE, there is one range each of user and group IDs
    that starts at root, and the pod does not use the node's PID or IPC namespace.
    """
    requested = options.userns_options
    if requested.mode == api_pb2.NODE or not options.HasField("userns_options"):
        if requested.uids or requested.gids:
            raise InvalidArgument("user namespace mode NODE does not allow ID mappings")
        return None
    if requested.mode != api_pb2.POD:
        raise InvalidArgument(f"user namespace mode {requested.mode} is invalid (must be POD or NODE)")
    if api_pb2.NODE in (options.pid, options.ipc):
        raise InvalidArgument("a pod with a user namespace cannot use the node's PID or IPC namespace")
    return UserNamespace(pin, _range(requested.uids, "user"), _range(requested.gids, "group"))


def check_same_user_namespace(pod: api_pb2.NamespaceOption, container: api_pb2.NamespaceOption) -> None:
    """Raise InvalidArgument if a container requests another user namespace than its pod."""
    pin = Path()
    if user_namespace(pod, pin) != user_namespace(container, pin):
        raise InvalidArgument("the container's user namespace differs from its pod's")


def check_ids_mapped(user: dict[str, Any], namespace: UserNamespace | None) -> None:
    """Raise InvalidArgument if the user or a group of ``process.user`` is not mapped in the namespace."""
    if namespace is None:
        return
    for kind, ids, mapped in (
        ("user", [user["uid"]], namespace.uids),
        ("group", [user["gid"], *user.get("additionalGids", ())], namespace.gids),
    ):
        for number in ids:
            if number >= mapped.size:
                raise InvalidArgument(f"{kind} {number} is not mapped in the pod's user namespace")


def oci_mappings(mappings: Sequence[IdRange | api_pb2.IDMapping]) -> list[dict[str, int]]:
    """Return OCI ``uidMappings`` or ``gidMappings``."""
    return [_oci(mapping) for mapping in mappings]


def _oci(mapping: IdRange | api_pb2.IDMapping) -> dict[str, int]:
    if isinstance(mapping, IdRange):
        return {"containerID": mapping.inside, "hostID": mapping.outside, "size": mapping.size}
    return {"containerID": mapping.container_id, "hostID": mapping.host_id, "size": mapping.length}


def _range(mappings: Sequence[api_pb2.IDMapping], kind: str) -> IdRange:
    if len(mappings) != 1:
        raise InvalidArgument(f"a user namespace requires one range of {kind} IDs, not {len(mappings)}")
    [mapping] = mappings
    start, host, length = mapping.container_id, mapping.host_id, mapping.length
    if start != 0 or length < 1 or host + length > _ID_COUNT:
        raise InvalidArgument(
            f"{kind} ID range {start}:{host}:{length} is invalid (must start at container ID 0, fit 32 bits)"
        )
    return IdRange(start, host, length)
