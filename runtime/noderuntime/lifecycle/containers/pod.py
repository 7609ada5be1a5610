"""The pod as the spec builder needs it: cgroup, namespaces and files of a sandbox."""

from __future__ import annotations

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import UserNamespace
from noderuntime.node.host.cgroup_names import pod_cgroup
from noderuntime.node.network.base import wants_pod_network
from noderuntime.node.spec.inputs import NamespaceType, Pod
from noderuntime.node.spec.userns import user_namespace


def cgroup_of(parts: Parts, sandbox: Sandbox) -> str:
    """Return the path of a pod's cgroup; InvalidArgument if the parent leaves the cgroup root."""
    return pod_cgroup(sandbox.config.linux.cgroup_parent, sandbox.id, parts.cgroup_driver)


def pod_of(parts: Parts, sandbox: Sandbox) -> Pod:
    """Return the spec builder's description of a sandbox's pod."""
    paths = parts.paths.sandbox(sandbox.id)
    return Pod(
        id=sandbox.id,
        config=sandbox.config,
        cgroup=cgroup_of(parts, sandbox),
        driver=parts.cgroup_driver,
        namespaces=namespaces_of(parts, sandbox),
        shm=paths.shm if wants_own_ipc(sandbox.config) else None,
        resolv_conf=paths.resolv_conf,
        hostname=paths.hostname,
        user=user_of(parts, sandbox),
        own_kernel=parts.executor(sandbox.handler).traits.own_kernel,
    )


def user_of(parts: Parts, sandbox: Sandbox) -> UserNamespace | None:
    """Return the sandbox's own user namespace; None if it uses the node's."""
    options = sandbox.config.linux.security_context.namespace_options
    return user_namespace(options, parts.paths.sandbox(sandbox.id).user)


def namespaces_of(parts: Parts, sandbox: Sandbox) -> dict[NamespaceType, str]:
    """Return the paths of the sandbox's own namespaces."""
    paths = parts.paths.sandbox(sandbox.id)
    namespaces: dict[NamespaceType, str] = {}
    if wants_pod_network(sandbox.config):
        namespaces |= {"network": str(paths.netns), "uts": str(paths.uts)}
    if wants_own_ipc(sandbox.config):
        namespaces["ipc"] = str(paths.ipc)
    if sandbox.root is not None and shares_pids(sandbox.config):
        namespaces["pid"] = f"/proc/{sandbox.root.pid}/ns/pid"
    return namespaces


def wants_own_ipc(config: api_pb2.PodSandboxConfig) -> bool:
    """Return whether the sandbox has its own IPC namespace (and /dev/shm)."""
    return bool(config.linux.security_context.namespace_options.ipc != api_pb2.NODE)


def shares_pids(config: api_pb2.PodSandboxConfig) -> bool:
    """Return whether the containers of the sandbox share a PID namespace."""
    return bool(config.linux.security_context.namespace_options.pid == api_pb2.POD)
