"""The built-in seccomp profile against a recorded verdict for every system call of the kernel's tables."""

from __future__ import annotations

import csv
import errno
from pathlib import Path
from typing import Any

import pytest

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.capabilities import capability_set
from noderuntime.node.spec.default_seccomp import DEFAULT_PROFILE
from noderuntime.node.spec.seccomp import resolve

KERNEL = "6.1.0"
ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
NEWER = "ENOSYS (newer)"
TABLE = list(csv.DictReader(Path(__file__).with_name("seccomp_verdicts.csv").read_text().splitlines()))
"""The system calls of Linux 7.0: their numbers on each architecture, and the recorded verdicts."""
EVERY = capability_set(
    api_pb2.LinuxContainerSecurityContext(capabilities={"add_capabilities": ["ALL"]}), (1 << 41) - 1
)


def rules_for(name: str, architecture: str, *capabilities: str, kernel: str = KERNEL) -> list[dict[str, Any]]:
    rules = resolve(DEFAULT_PROFILE, capabilities, architecture, kernel)["syscalls"]
    return [rule for rule in rules if name in rule["names"]]


def is_allowed(name: str, architecture: str, *capabilities: str, kernel: str = KERNEL) -> bool:
    rules = rules_for(name, architecture, *capabilities, kernel=kernel)
    return any(rule["action"] == ALLOW and "args" not in rule for rule in rules)


def newest(architecture: str) -> int:
    """Return the highest number in the profile. runc refuses those above it with ENOSYS."""
    rules = resolve(DEFAULT_PROFILE, (), architecture, KERNEL)["syscalls"]
    named = {name for rule in rules for name in rule["names"]}
    return max(int(row[architecture]) for row in TABLE if row[architecture] and row["name"] in named)


def verdict(row: dict[str, str], architecture: str) -> str:
    """Return what a container gets: allowed, with which capabilities or arguments, or the error."""
    name, number = row["name"], row[architecture]
    if is_allowed(name, architecture):
        return "allowed"
    granting = [one for one in EVERY if is_allowed(name, architecture, one)]
    if granting:
        conditions = ["arguments"] if any("args" in one for one in rules_for(name, architecture)) else []
        return " or ".join([*conditions, *granting])
    if rules_for(name, architecture):
        return "arguments"
    return NEWER if number and int(number) > newest(architecture) else "EPERM"


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_system_call_has_its_recorded_verdict(architecture: str) -> None:
    """A difference is a change for every pod: it belongs into the changelog, and then into the table."""
    exists = [row for row in TABLE if row[architecture] or (architecture == "x86_64" and row["i386"])]
    changed = {
        row["name"]: (row[f"on_{architecture}"], verdict(row, architecture))
        for row in exists
        if row[f"on_{architecture}"] != verdict(row, architecture)
    }
    assert changed == {}, "recorded, now"
    assert len(exists) > 300


def test_rules_name_only_system_calls_of_the_tables() -> None:
    """A misspelt name allows nothing: runtimes ignore names that they do not know."""
    known = {row["name"] for row in TABLE}
    other = {"arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "recv", "send"}
    other |= {"sync_file_range2", "riscv_hwprobe"}
    for architecture in ("x86_64", "aarch64"):
        rules = resolve(DEFAULT_PROFILE, EVERY, architecture, KERNEL)["syscalls"]
        assert {name for rule in rules for name in rule["names"]} - known <= other


def test_refused_system_calls_fail_with_eperm_by_default() -> None:
    profile = resolve(DEFAULT_PROFILE, (), "x86_64", KERNEL)
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == (ERRNO, errno.EPERM)
    assert {rule["action"] for rule in profile["syscalls"] if rule["names"] != ["clone3"]} == {ALLOW}


def test_clone3_fails_with_enosys_without_sys_admin() -> None:
    (rule,) = rules_for("clone3", "x86_64")
    assert (rule["action"], rule["errnoRet"]) == (ERRNO, errno.ENOSYS)
    assert all(one["action"] == ALLOW for one in rules_for("clone3", "x86_64", "CAP_SYS_ADMIN"))


@pytest.mark.parametrize(("architecture", "index"), [("x86_64", 0), ("aarch64", 0), ("s390x", 1)])
def test_clone_creates_no_namespaces_without_sys_admin(architecture: str, index: int) -> None:
    (rule,) = rules_for("clone", architecture)
    (argument,) = rule["args"]
    flags = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
    assert argument == {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": flags, "valueTwo": 0}
    assert is_allowed("clone", architecture, "CAP_SYS_ADMIN")


@pytest.mark.parametrize("family", [1, 16, 37, 39, 41])
def test_ordinary_socket_families_are_allowed(family: int) -> None:
    assert family_allowed(family)


@pytest.mark.parametrize("family", [38, 40], ids=["AF_ALG", "AF_VSOCK"])
def test_af_alg_and_af_vsock_are_refused(family: int) -> None:
    assert not family_allowed(family)


def family_allowed(family: int) -> bool:
    """Return whether a rule, each of which has one comparison of the family, allows it."""
    operators = {"LT": int.__lt__, "EQ": int.__eq__, "GT": int.__gt__}
    arguments = [rule["args"] for rule in rules_for("socket", "x86_64", *EVERY)]
    assert all(len(one) == 1 and one[0]["index"] == 0 for one in arguments)
    return any(
        operators[one[0]["op"].removeprefix("SCMP_CMP_")](family, one[0]["value"]) for one in arguments
    )


def test_personality_has_only_its_known_values() -> None:
    values = {rule["args"][0]["value"] for rule in rules_for("personality", "x86_64", *EVERY)}
    assert values == {0, 8, 0x20000, 0x20008, 0xFFFFFFFF}


def test_ptrace_is_allowed_since_linux_4_8() -> None:
    assert is_allowed("ptrace", "x86_64", kernel="4.8.0")
    assert not is_allowed("ptrace", "x86_64", kernel="4.7.9")
    assert is_allowed("ptrace", "x86_64", "CAP_SYS_PTRACE", kernel="4.7.9")


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("x86_64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("aarch64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ],
)
def test_32_bit_programs_are_filtered_too(architecture: str, expected: list[str]) -> None:
    assert resolve(DEFAULT_PROFILE, (), architecture, KERNEL)["architectures"] == expected
