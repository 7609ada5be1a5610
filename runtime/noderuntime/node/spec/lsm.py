"""Linux security modules: the AppArmor profile of a container, and validation of SELinux options.

SELinux labels are validated but not set; containerd does not set them by default either.
"""

from __future__ import annotations

import re

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.profiles import requested_apparmor
from noderuntime.node.spec.validation import quoted

_LEVEL = re.compile(r"s\d(-s\d)?(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?)*)?")


def apparmor_profile(context: api_pb2.LinuxContainerSecurityContext, facts: HostFacts) -> str:
    """Return OCI ``process.apparmorProfile``, or an empty string for unconfined.

    By default, the default profile confines all except privileged containers. InvalidArgument if a profile
    is requested on a node without AppArmor, or if the requested profile is not loaded.
    """
    profile = requested_apparmor(context) or api_pb2.SecurityProfile()
    if profile.profile_type == api_pb2.SecurityProfile.Unconfined:
        return ""
    if facts.apparmor is None:
        if requested_apparmor(context) is not None:
            raise InvalidArgument("an AppArmor profile is requested, but AppArmor is disabled on this node")
        return ""
    if not profile.localhost_ref:
        return "" if context.privileged else facts.apparmor.default
    if not facts.apparmor.knows(profile.localhost_ref):
        raise InvalidArgument(f"AppArmor profile {quoted(profile.localhost_ref)} is not loaded on this node")
    return profile.localhost_ref


def check_selinux(options: api_pb2.SELinuxOption) -> None:
    """Raise InvalidArgument if the level is malformed."""
    if options.level and not _LEVEL.fullmatch(options.level):
        raise InvalidArgument(f"SELinux level {quoted(options.level)} is invalid (example: s0:c1,c2)")
