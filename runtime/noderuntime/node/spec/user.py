"""The user and groups of a container's process, resolved in the image's /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.rootfs import read_in_rootfs
from noderuntime.node.spec.validation import quoted

_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: frozenset[str]


def oci_user(context: api_pb2.LinuxContainerSecurityContext, image_user: str, rootfs: Path) -> dict[str, Any]:
    """Return OCI ``process.user``. InvalidArgument names a user or group that the image does not contain.

    The groups are the primary one, those of the image's /etc/group that list the user
    (unless the policy is Strict), and the pod's supplemental groups.
    """
    user, group = _requested(context, image_user)
    account = _account(user, lambda: _accounts(rootfs))
    gid = account.gid
    if context.HasField("run_as_group"):
        gid = _number(str(context.run_as_group.value), "run_as_group")
    elif group:
        gid = _group_id(group, rootfs)
    extra = list(context.supplemental_groups)
    if context.supplemental_groups_policy == api_pb2.SupplementalGroupsPolicy.Merge and account.name:
        extra = [*(entry.gid for entry in _groups(rootfs) if account.name in entry.members), *extra]
    gids = [_number(str(number), "a supplemental group") for number in dict.fromkeys([gid, *extra])]
    return {"uid": account.uid, "gid": gid, "additionalGids": gids}


def root_user(context: api_pb2.LinuxSandboxSecurityContext) -> dict[str, Any]:
    """Return OCI ``process.user`` of a sandbox's root container. It has no image, so IDs are numeric."""
    return {
        "uid": _number(str(context.run_as_user.value), "run_as_user"),
        "gid": _number(str(context.run_as_group.value), "run_as_group"),
    }


def _requested(context: api_pb2.LinuxContainerSecurityContext, image_user: str) -> tuple[str, str]:
    """Return user and group as strings. With the pod's user, the image's group is ignored."""
    if context.HasField("run_as_user"):
        return str(context.run_as_user.value), ""
    if context.run_as_username:
        return context.run_as_username, ""
    if context.HasField("run_as_group"):
        raise InvalidArgument("run_as_group without run_as_user or run_as_username: set one of them too")
    user, _, group = image_user.partition(":")
    return user or "0", group


def _account(user: str, accounts: Callable[[], Iterator[_Account]]) -> _Account:
    if user.lstrip("-").isdecimal():
        uid = _number(user, "user")
        return next((account for account in accounts() if account.uid == uid), _Account("", uid, 0))
    found = next((account for account in accounts() if account.name == user), None)
    if found is None:
        raise InvalidArgument(f"the image has no user {quoted(user)}")
    return found


def _group_id(group: str, rootfs: Path) -> int:
    if group.isdecimal():
        return _number(group, "group")
    found = next((entry for entry in _groups(rootfs) if entry.name == group), None)
    if found is None:
        raise InvalidArgument(f"the image has no group {quoted(group)}")
    return found.gid


def _number(text: str, what: str) -> int:
    number = int(text) if len(text) <= 20 else -1
    if not 0 <= number <= _MAX_ID:
        raise InvalidArgument(f"{what} {quoted(text)} is not between 0 and {_MAX_ID}")
    return number


def _accounts(rootfs: Path) -> Iterator[_Account]:
    for fields in _records(rootfs, "/etc/passwd", 4):
        if fields[2].isdecimal() and fields[3].isdecimal():
            yield _Account(fields[0], int(fields[2]), int(fields[3]))


def _groups(rootfs: Path) -> Iterator[_Group]:
    for fields in _records(rootfs, "/etc/group", 3):
        if fields[2].isdecimal():
            members = fields[3].split(",") if len(fields) > 3 else []
            yield _Group(fields[0], int(fields[2]), frozenset(members))


def _records(rootfs: Path, path: str, minimum: int) -> Iterator[list[str]]:
    """Yield the fields of each line that has at least ``minimum`` of them."""
    content = read_in_rootfs(rootfs, path) or b""
    for line in content.decode(errors="replace").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= minimum and fields[0] and not line.startswith("#"):
            yield fields
