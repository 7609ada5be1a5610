from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.user import oci_user


def context(**fields: Any) -> api_pb2.LinuxContainerSecurityContext:
    for name in ("run_as_user", "run_as_group"):
        if name in fields:
            fields[name] = api_pb2.Int64Value(value=fields[name])
    return api_pb2.LinuxContainerSecurityContext(**fields)


@pytest.mark.parametrize(
    ("requested", "image_user", "uid", "gids"),
    [
        ({}, "", 0, [0]),
        ({}, "app", 1000, [2000, 50, 60]),
        ({}, "1000", 1000, [2000, 50, 60]),
        ({}, "app:staff", 1000, [50, 60]),
        ({}, "4242", 4242, [0]),
        ({}, "4242:77", 4242, [77]),
        ({"run_as_user": 1000}, "root:logs", 1000, [2000, 50, 60]),
        ({"run_as_user": 1000, "run_as_group": 9}, "", 1000, [9, 50, 60]),
        ({"run_as_user": 0}, "app", 0, [0]),
        ({"run_as_username": "app"}, "", 1000, [2000, 50, 60]),
        ({"supplemental_groups": [7, 50]}, "app", 1000, [2000, 50, 60, 7]),
        ({"supplemental_groups": [7], "supplemental_groups_policy": 1}, "app", 1000, [2000, 7]),
    ],
)
def test_oci_user_resolves_user_and_groups(
    rootfs: Path, requested: dict[str, Any], image_user: str, uid: int, gids: list[int]
) -> None:
    user = oci_user(context(**requested), image_user, rootfs)
    assert user == {"uid": uid, "gid": gids[0], "additionalGids": gids}


@pytest.mark.parametrize(
    ("requested", "image_user", "expected"),
    [
        ({}, "nobody", "no user 'nobody'"),
        ({}, "app:nogroup", "no group 'nogroup'"),
        ({"run_as_user": -1}, "", "user '-1' is not between"),
        ({"run_as_user": 2**31}, "", "is not between"),
        ({"run_as_group": 5}, "", "run_as_group without"),
        ({"run_as_username": "x\n" * 5000}, "", "no user"),
        ({}, "²", "no user"),
        ({"supplemental_groups": [-4]}, "", "supplemental group '-4'"),
    ],
)
def test_invalid_user_is_refused_with_one_short_line(
    rootfs: Path, requested: dict[str, Any], image_user: str, expected: str
) -> None:
    with pytest.raises(InvalidArgument) as error:
        oci_user(context(**requested), image_user, rootfs)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_image_without_passwd_resolves_numbers_only(tmp_path: Path) -> None:
    assert oci_user(context(), "5:6", tmp_path)["gid"] == 6
    with pytest.raises(InvalidArgument):
        oci_user(context(), "root", tmp_path)


def test_symlinks_in_the_image_stay_in_the_image(tmp_path: Path) -> None:
    outside = tmp_path / "passwd"
    outside.write_text("intruder:x:7:7::/:/bin/sh\n")
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").symlink_to(os.path.relpath(outside, root / "etc"))
    with pytest.raises(InvalidArgument, match="no user 'intruder'"):
        oci_user(context(), "intruder", root)


def test_absolute_symlinks_are_resolved_in_the_image(rootfs: Path) -> None:
    (rootfs / "etc/passwd").rename(rootfs / "users")
    (rootfs / "etc/passwd").symlink_to("/users")
    assert oci_user(context(), "app", rootfs)["uid"] == 1000


def test_passwd_that_is_a_fifo_or_too_large_is_refused(rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    os.mkfifo(rootfs / "etc/passwd")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        oci_user(context(), "app", rootfs)
    (rootfs / "etc/passwd").unlink()
    with (rootfs / "etc/passwd").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InvalidArgument, match="at most 4 MiB"):
        oci_user(context(), "app", rootfs)
