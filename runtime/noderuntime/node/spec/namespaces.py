"""Namespaces of a container: the pod's by path, new ones of its own, and otherwise the node's."""

from __future__ import annotations

from noderuntime.core.errors import FailedPrecondition
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.inputs import Pod
from noderuntime.node.spec.userns import check_same_user_namespace

Namespace = dict[str, str]


def container_namespaces(
    pod: Pod, options: api_pb2.NamespaceOption, target_pid: int | None, *, own_cgroup: bool
) -> list[Namespace]:
    """Return OCI ``linux.namespaces`` of a container."""
    check_same_user_namespace(pod.config.linux.security_context.namespace_options, options)
    namespaces = [{"type": "mount"}, *_joined(pod)]
    if options.pid == api_pb2.NamespaceMode.TARGET:
        if target_pid is None:
            raise FailedPrecondition("the target container of namespace mode TARGET is not running")
        namespaces.append({"type": "pid", "path": f"/proc/{target_pid}/ns/pid"})
    elif options.pid == api_pb2.NamespaceMode.POD and "pid" in pod.namespaces:
        namespaces.append({"type": "pid", "path": pod.namespaces["pid"]})
    elif options.pid != api_pb2.NamespaceMode.NODE:
        namespaces.append({"type": "pid"})
    if own_cgroup:
        namespaces.append({"type": "cgroup"})
    return namespaces


def root_namespaces(pod: Pod) -> list[Namespace]:
    """Return OCI ``linux.namespaces`` of a sandbox's root container."""
    namespaces = [{"type": "mount"}, *_joined(pod)]
    if pod.config.linux.security_context.namespace_options.pid != api_pb2.NamespaceMode.NODE:
        namespaces.append({"type": "pid"})
    return namespaces


def _joined(pod: Pod) -> list[Namespace]:
    user = [] if pod.user is None else [{"type": "user", "path": str(pod.user.pin)}]
    return user + [
        {"type": kind, "path": pod.namespaces[kind]}
        for kind in ("network", "ipc", "uts")
        if kind in pod.namespaces
    ]
