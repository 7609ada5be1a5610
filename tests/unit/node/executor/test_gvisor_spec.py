"""Values of a spec that runsc ignores or rejects are replaced by equivalent ones."""

from __future__ import annotations

from typing import Any

from noderuntime.node.executor.gvisor_spec import translate


def _spec(**linux: Any) -> dict[str, Any]:
    return {"process": {"user": {"uid": 1, "gid": 5}}, "linux": linux}


def test_recursive_read_only_mount_becomes_read_only() -> None:
    spec = _spec() | {"mounts": [{"options": ["rbind", "rprivate", "rro"]}, {"options": ["rw"]}, {}]}
    translate(spec)
    assert [one["options"] for one in spec["mounts"]] == [["rbind", "rprivate", "ro"], ["rw"], []]


def test_supplementary_groups_are_sorted_as_on_linux() -> None:
    spec = _spec()
    spec["process"]["user"]["additionalGids"] = [5, 40, 7]
    translate(spec)
    assert spec["process"]["user"] == {"uid": 1, "gid": 5, "additionalGids": [5, 7, 40]}


def test_seccomp_actions_are_replaced_in_a_copy_of_the_profile() -> None:
    rule = {"names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS", "args": []}
    shared = {"defaultAction": "SCMP_ACT_LOG", "syscalls": [rule]}
    spec = _spec(seccomp=shared)
    translate(spec)
    assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"
    assert spec["linux"]["seccomp"]["syscalls"] == [{**rule, "action": "SCMP_ACT_KILL"}]
    assert (shared["defaultAction"], rule["action"]) == ("SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS")
