"""Requested security profiles, from CRI's current message fields or the deprecated string fields."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.validation import check_text, quoted

_PREFIX = "localhost/"
_KINDS = {
    "runtime/default": api_pb2.SecurityProfile.RuntimeDefault,
    "docker/default": api_pb2.SecurityProfile.RuntimeDefault,
    "unconfined": api_pb2.SecurityProfile.Unconfined,
}


def requested_apparmor(context: api_pb2.LinuxContainerSecurityContext) -> api_pb2.SecurityProfile | None:
    """Return the AppArmor profile that a container requests, or None."""
    return _requested(context.apparmor if context.HasField("apparmor") else None, context.apparmor_profile)


def requested_seccomp(
    context: api_pb2.LinuxContainerSecurityContext | api_pb2.LinuxSandboxSecurityContext,
) -> api_pb2.SecurityProfile | None:
    """Return the seccomp profile that a container or pod requests, or None."""
    return _requested(context.seccomp if context.HasField("seccomp") else None, context.seccomp_profile_path)


def _requested(profile: api_pb2.SecurityProfile | None, text: str) -> api_pb2.SecurityProfile | None:
    if profile is None:
        profile = _from_text(text)
    if profile is None:
        return None
    local = profile.profile_type == api_pb2.SecurityProfile.Localhost
    name = check_text(profile.localhost_ref, "the security profile").removeprefix(_PREFIX)
    if bool(name) is not local:
        raise InvalidArgument(
            f"security profile {quoted(name)} is invalid (only type Localhost must have a localhost_ref)"
        )
    return api_pb2.SecurityProfile(profile_type=profile.profile_type, localhost_ref=name)


def _from_text(text: str) -> api_pb2.SecurityProfile | None:
    if not text:
        return None
    if text.startswith(_PREFIX):
        return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref=text)
    if text not in _KINDS:
        raise InvalidArgument(f"security profile {quoted(text)} is unknown")
    return api_pb2.SecurityProfile(profile_type=_KINDS[text])
