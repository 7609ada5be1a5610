"""seccomp profiles in the format of container engines, resolved to OCI ``linux.seccomp``.

Such a profile lists system calls with conditions (``includes``, ``excludes``) on capabilities,
architecture and kernel version. They are evaluated here, because the container's capabilities must
be known.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.kernel import version_of
from noderuntime.node.host.regular import read_regular
from noderuntime.node.spec.default_seccomp import DEFAULT_PROFILE
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.validation import check_absolute, quoted

_LIMIT = 4 << 20
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}

Profile = dict[str, Any]


def oci_seccomp(
    profile: api_pb2.SecurityProfile, capabilities: Collection[str], facts: HostFacts
) -> Profile | None:
    """Return OCI ``linux.seccomp``, or None for unconfined.

    A Localhost profile is the file at ``localhost_ref``, an absolute path set by the kubelet. RuntimeDefault
    is the configured file, or the built-in profile.
    """
    kind = profile.profile_type
    if kind == api_pb2.SecurityProfile.Unconfined:
        return None
    file: Path | None
    if kind == api_pb2.SecurityProfile.RuntimeDefault:
        file = facts.seccomp_profile
    elif kind == api_pb2.SecurityProfile.Localhost:
        file = Path(check_absolute(profile.localhost_ref, "the seccomp profile"))
    else:
        raise InvalidArgument(f"seccomp profile type {kind} is unknown")
    if file is None:
        return _default(frozenset(capabilities), facts.architecture, facts.kernel)
    return _cached(file, file_stamp(file), frozenset(capabilities), facts.architecture, facts.kernel)


def file_stamp(file: Path) -> int:
    """Return the file's modification time in nanoseconds. InvalidArgument if it does not exist."""
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        raise invalid_argument(f"seccomp profile {quoted(str(file))}", error) from error


@functools.lru_cache(maxsize=8)
def _default(capabilities: frozenset[str], architecture: str, kernel: str) -> Profile:
    return resolve(DEFAULT_PROFILE, capabilities, architecture, kernel)


@functools.lru_cache(maxsize=32)
def _cached(file: Path, _stamp: int, capabilities: frozenset[str], architecture: str, kernel: str) -> Profile:
    profile = _load(file)
    try:
        return resolve(profile, capabilities, architecture, kernel)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"seccomp profile {quoted(str(file))} is malformed: {error}") from error


def resolve(
    profile: Mapping[str, Any], capabilities: Collection[str], architecture: str, kernel: str
) -> Profile:
    """Return the OCI form of the entries whose conditions hold. Pure."""
    go_name, native = _ARCHITECTURES.get(architecture, (architecture, ""))
    resolved: Profile = {"defaultAction": profile["defaultAction"]}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if key in profile:
            resolved[key] = profile[key]
    if architectures := _architectures(profile, native):
        resolved["architectures"] = architectures
    resolved["syscalls"] = [
        _rule(entry)
        for entry in profile.get("syscalls") or ()
        if _holds(entry.get("includes") or {}, capabilities, go_name, kernel)
        and not _excluded(entry.get("excludes") or {}, capabilities, go_name, kernel)
    ]
    return resolved


def _load(file: Path) -> Mapping[str, Any]:
    try:
        profile = json.loads(read_regular(file, _LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"seccomp profile {quoted(str(file))} cannot be read: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise InvalidArgument(f"seccomp profile {quoted(str(file))} has no defaultAction")
    return profile


def _architectures(profile: Mapping[str, Any], native: str) -> Sequence[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return []


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": entry.get("names") or [entry["name"]], "action": entry["action"]}
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = entry["errnoRet"]
    if entry.get("args"):
        rule["args"] = entry["args"]
    return rule


def _holds(condition: Mapping[str, Any], capabilities: Collection[str], arch: str, kernel: str) -> bool:
    """Return whether all parts of a condition hold. An empty condition holds."""
    arches, minimum = condition.get("arches"), condition.get("minKernel")
    return (
        (not arches or arch in arches)
        and all(name in capabilities for name in condition.get("caps") or ())
        and (not minimum or version_of(kernel) >= version_of(minimum))
    )


def _excluded(condition: Mapping[str, Any], capabilities: Collection[str], arch: str, kernel: str) -> bool:
    """Return whether any part of a condition holds."""
    minimum = condition.get("minKernel")
    return (
        arch in (condition.get("arches") or ())
        or any(name in capabilities for name in condition.get("caps") or ())
        or bool(minimum and version_of(kernel) >= version_of(minimum))
    )
