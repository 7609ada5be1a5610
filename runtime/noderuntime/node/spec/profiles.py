"""Security profiles as pods ask for them: in the present form, or in the old one, a text."""

from __future__ import annotations

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.words import clean, shown

_PREFIX = "localhost/"
_KINDS = {
    "runtime/default": api_pb2.SecurityProfile.RuntimeDefault,
    "docker/default": api_pb2.SecurityProfile.RuntimeDefault,
    "unconfined": api_pb2.SecurityProfile.Unconfined,
}


def asked_apparmor(context: api_pb2.LinuxContainerSecurityContext) -> api_pb2.SecurityProfile | None:
    """Return the AppArmor profile that a container asks for; None where it asks for none."""
    return _asked(context.apparmor if context.HasField("apparmor") else None, context.apparmor_profile)


def asked_seccomp(
    context: api_pb2.LinuxContainerSecurityContext | api_pb2.LinuxSandboxSecurityContext,
) -> api_pb2.SecurityProfile | None:
    """Return the seccomp profile that a container or pod asks for; None where it asks for none."""
    return _asked(context.seccomp if context.HasField("seccomp") else None, context.seccomp_profile_path)


def _asked(profile: api_pb2.SecurityProfile | None, text: str) -> api_pb2.SecurityProfile | None:
    if profile is None:
        profile = _from_text(text)
    if profile is None:
        return None
    local = profile.profile_type == api_pb2.SecurityProfile.Localhost
    name = clean(profile.localhost_ref, "the security profile").removeprefix(_PREFIX)
    if bool(name) is not local:
        raise InvalidArgument(
            f"security profile {shown(name)} is named where none is asked for, or not named"
        )
    return api_pb2.SecurityProfile(profile_type=profile.profile_type, localhost_ref=name)


def _from_text(text: str) -> api_pb2.SecurityProfile | None:
    if not text:
        return None
    if text.startswith(_PREFIX):
        return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref=text)
    if text not in _KINDS:
        raise InvalidArgument(f"{shown(text)} is no security profile")
    return api_pb2.SecurityProfile(profile_type=_KINDS[text])
