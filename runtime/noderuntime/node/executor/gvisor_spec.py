"""OCI specs for runsc: values that runsc ignores or rejects are replaced by equivalent ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD": "SCMP_ACT_KILL",
    "SCMP_ACT_LOG": "SCMP_ACT_ALLOW",
}
"""seccomp actions that runsc rejects, and equivalents that allow the same system calls."""


def translate(spec: dict[str, Any]) -> None:
    """Change a container's spec in place.

    A read-only mount in runsc applies to its submounts too, so ``ro`` replaces ``rro``. Groups are sorted in
    ascending order, which is the order of getgroups(2) on Linux. runsc keeps the order of the spec.
    """
    for mount in spec.get("mounts", ()):
        mount["options"] = ["ro" if one == "rro" else one for one in mount.get("options", ())]
    user = spec["process"].get("user", {})
    if "additionalGids" in user:
        user["additionalGids"] = sorted(user["additionalGids"])
    profile = spec["linux"].get("seccomp")
    if profile is not None:
        spec["linux"]["seccomp"] = _seccomp(profile)


def _seccomp(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return a changed copy of a profile. Containers share profiles."""
    rules = [{**rule, "action": _action(rule["action"])} for rule in profile["syscalls"]]
    return {**profile, "defaultAction": _action(profile["defaultAction"]), "syscalls": rules}


def _action(name: str) -> str:
    return _ACTIONS.get(name, name)
