from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.capabilities import capability_set, oci_capabilities
from noderuntime.node.spec.default_seccomp import DEFAULT_PROFILE
from noderuntime.node.spec.facts import HostFacts, read_facts
from noderuntime.node.spec.seccomp import oci_seccomp, resolve

ALL = (1 << 41) - 1
PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["mount"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["arm_only"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"name": "future", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
    ],
}


def context(*, privileged: bool = False, **lists: list[str]) -> api_pb2.LinuxContainerSecurityContext:
    return api_pb2.LinuxContainerSecurityContext(
        privileged=privileged, capabilities=api_pb2.Capability(**lists)
    )


def test_default_capabilities_exclude_sys_admin() -> None:
    chosen = capability_set(context(), ALL)
    assert len(chosen) == 14
    assert "CAP_NET_BIND_SERVICE" in chosen
    assert "CAP_SYS_ADMIN" not in chosen


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["CHOWN"], ["ALL"], ["CAP_CHOWN"]),
        (["cap_net_admin"], ["all"], ["CAP_NET_ADMIN"]),
        ([], ["ALL"], []),
        (["CHOWN"], ["ALL", "CHOWN"], []),
    ],
)
def test_capability_all_is_applied_before_single_names(
    add: list[str], drop: list[str], expected: list[str]
) -> None:
    assert capability_set(context(add_capabilities=add, drop_capabilities=drop), ALL) == expected


def test_all_and_privileged_grant_the_available_capabilities() -> None:
    node = ALL & ~(1 << 24)
    added = capability_set(context(add_capabilities=["ALL"], drop_capabilities=["SYS_TIME"]), node)
    assert len(added) == 39
    assert "CAP_SYS_RESOURCE" not in capability_set(context(privileged=True), node)
    assert len(capability_set(context(privileged=True), node)) == 40


def test_only_ambient_capabilities_are_inheritable() -> None:
    assert set(oci_capabilities(context(), ALL)) == {"bounding", "effective", "permitted"}
    requested = context(add_ambient_capabilities=["NET_BIND_SERVICE"])
    assert oci_capabilities(requested, ALL)["ambient"] == ["CAP_NET_BIND_SERVICE"]


def test_unknown_capability_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="capability 'CAP_FLY' is unknown"):
        capability_set(context(add_capabilities=["FLY"]), ALL)


def test_seccomp_conditions_are_resolved() -> None:
    plain = resolve(PROFILE, (), "x86_64", "6.1.0-18-amd64")
    assert [rule["names"][0] for rule in plain["syscalls"]] == ["read", "mount", "ptrace"]
    assert plain["syscalls"][1] == {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert plain["defaultErrnoRet"] == 38
    admin = resolve(PROFILE, ("CAP_SYS_ADMIN",), "aarch64", "4.4")
    assert [rule["names"][0] for rule in admin["syscalls"]] == ["read", "mount", "arm_only"]
    assert admin["syscalls"][1]["action"] == "SCMP_ACT_ALLOW"


def test_seccomp_profile_follows_its_type(facts: HostFacts, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(PROFILE))
    known = dataclasses.replace(facts, seccomp_profile=file)
    kinds = api_pb2.SecurityProfile
    default = oci_seccomp(kinds(profile_type=kinds.RuntimeDefault), (), known)
    local = oci_seccomp(kinds(profile_type=kinds.Localhost, localhost_ref=str(file)), (), facts)
    assert default == local is not None
    assert oci_seccomp(kinds(profile_type=kinds.Unconfined), (), known) is None


def test_built_in_seccomp_profile_needs_no_file(facts: HostFacts) -> None:
    kinds = api_pb2.SecurityProfile
    built_in = oci_seccomp(kinds(profile_type=kinds.RuntimeDefault), (), facts)
    assert built_in is not None
    assert built_in == resolve(DEFAULT_PROFILE, (), facts.architecture, facts.kernel)


def test_unreadable_configured_seccomp_profile_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"tools\.seccomp_profile .*/none\.json cannot be read"):
        read_facts(seccomp_profile=tmp_path / "none.json")


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"syscalls": []}', '{"defaultAction": "x", "syscalls": [{}]}', "\udcff"]
)
def test_malformed_seccomp_profile_is_refused(facts: HostFacts, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "profile.json"
    if content is not None:
        file.write_text(content, errors="surrogateescape")
        os.utime(file, ns=(0, hash(content) % 10**9))
    profile = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref=str(file))
    with pytest.raises(InvalidArgument):
        oci_seccomp(profile, (), facts)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev", "fifo"])
def test_seccomp_profile_must_be_a_regular_file(facts: HostFacts, tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    kinds = api_pb2.SecurityProfile
    profile = kinds(profile_type=kinds.Localhost, localhost_ref=str(tmp_path / path))
    with pytest.raises(InvalidArgument):
        oci_seccomp(profile, (), facts)


def test_seccomp_profile_must_be_an_absolute_path(facts: HostFacts) -> None:
    profile = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref="../x")
    with pytest.raises(InvalidArgument, match="not an absolute path"):
        oci_seccomp(profile, (), facts)
