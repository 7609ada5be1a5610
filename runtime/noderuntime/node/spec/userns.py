"""User namespaces: what CRI asks for, checked, and what OCI is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import IdRange, UserNamespace

_IDS = 2**32 - 1
"""The kernel's IDs; the last one means none."""


def user_namespace(options: api_pb2.NamespaceOption, pin: Path) -> UserNamespace | None:
    """Return the user namespace that a pod or container is to have; None for the node's.

    InvalidArgument unless it is a mode that exists with one range of users and one of groups,
    which begin with root, in a pod that has its processes and IPC for itself.
    """
    asked = options.userns_options
    if asked.mode == api_pb2.NODE or not options.HasField("userns_options"):
        if asked.uids or asked.gids:
            raise InvalidArgument("the node's user namespace takes no ID mappings")
        return None
    if asked.mode != api_pb2.POD:
        raise InvalidArgument(f"user namespace mode {asked.mode} is none of POD and NODE")
    if api_pb2.NODE in (options.pid, options.ipc):
        raise InvalidArgument("a pod with a user namespace cannot have the node's processes or IPC")
    return UserNamespace(pin, _range(asked.uids, "user"), _range(asked.gids, "group"))


def check_same(pod: api_pb2.NamespaceOption, container: api_pb2.NamespaceOption) -> None:
    """See to it that a container asks for its pod's user namespace."""
    nowhere = Path()
    if user_namespace(pod, nowhere) != user_namespace(container, nowhere):
        raise InvalidArgument("the container's user namespace is not its pod's")


def check_inside(user: dict[str, Any], namespace: UserNamespace | None) -> None:
    """See to it that there is such a user in the namespace, and such groups."""
    if namespace is None:
        return
    for what, ids, there in (
        ("user", [user["uid"]], namespace.uids),
        ("group", [user["gid"], *user.get("additionalGids", ())], namespace.gids),
    ):
        for one in ids:
            if one >= there.size:
                raise InvalidArgument(f"there is no {what} {one} in the pod's user namespace")


def oci_mappings(mappings: Sequence[IdRange | api_pb2.IDMapping]) -> list[dict[str, int]]:
    """Return OCI's form of ID mappings."""
    return [_oci(one) for one in mappings]


def _oci(one: IdRange | api_pb2.IDMapping) -> dict[str, int]:
    if isinstance(one, IdRange):
        return {"containerID": one.inside, "hostID": one.outside, "size": one.size}
    return {"containerID": one.container_id, "hostID": one.host_id, "size": one.length}


def _range(mappings: Sequence[api_pb2.IDMapping], what: str) -> IdRange:
    if len(mappings) != 1:
        raise InvalidArgument(f"a user namespace needs one range of {what} IDs, not {len(mappings)}")
    [one] = mappings
    if one.container_id != 0 or one.length < 1 or one.host_id + one.length > _IDS:
        raise InvalidArgument(
            f"{what} IDs {one.container_id}:{one.host_id}:{one.length} are no range that begins with root"
        )
    return IdRange(one.container_id, one.host_id, one.length)
