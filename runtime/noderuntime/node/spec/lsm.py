"""Linux security modules: the AppArmor profile of a container, and SELinux options, which are checked only.

Labels of SELinux are not set, as containerd does not set them unless it is told to.
"""

from __future__ import annotations

import re

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.profiles import asked_apparmor
from noderuntime.node.spec.words import shown

_LEVEL = re.compile(r"s\d(-s\d)?(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?)*)?")


def apparmor_profile(context: api_pb2.LinuxContainerSecurityContext, facts: HostFacts) -> str:
    """Return OCI ``process.apparmorProfile``; empty for none.

    Without a wish the default profile confines all but privileged containers. InvalidArgument when a profile
    is wished for on a node without AppArmor, or one that the node's kernel does not have.
    """
    asked = asked_apparmor(context) or api_pb2.SecurityProfile()
    if asked.profile_type == api_pb2.SecurityProfile.Unconfined:
        return ""
    if facts.apparmor is None:
        if asked_apparmor(context) is not None:
            raise InvalidArgument("an AppArmor profile is asked for, but this node has no AppArmor")
        return ""
    if not asked.localhost_ref:
        return "" if context.privileged else facts.apparmor.default
    if not facts.apparmor.knows(asked.localhost_ref):
        raise InvalidArgument(f"this node has no AppArmor profile {shown(asked.localhost_ref)}")
    return asked.localhost_ref


def check_selinux(options: api_pb2.SELinuxOption) -> None:
    """Raise InvalidArgument for a level that is none."""
    if options.level and not _LEVEL.fullmatch(options.level):
        raise InvalidArgument(f"SELinux level {shown(options.level)} is none, like s0:c1,c2")
