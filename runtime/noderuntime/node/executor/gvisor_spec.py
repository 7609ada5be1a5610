"""An OCI spec in the words that runsc understands; what it would ignore or take amiss is said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD": "SCMP_ACT_KILL",
    "SCMP_ACT_LOG": "SCMP_ACT_ALLOW",
}
"""seccomp actions that runsc refuses, and those that let the same system calls through."""


def translate(spec: dict[str, Any]) -> None:
    """Change a container's spec in place.

    A read-only mount is read-only with all that is mounted in it, so recursively is the same. Groups
    come in ascending order, as Linux tells them whatever their order was; runsc keeps the one given.
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
    """Return a copy: profiles are shared between containers."""
    rules = [{**rule, "action": _action(rule["action"])} for rule in profile["syscalls"]]
    return {**profile, "defaultAction": _action(profile["defaultAction"]), "syscalls": rules}


def _action(name: str) -> str:
    return _ACTIONS.get(name, name)
