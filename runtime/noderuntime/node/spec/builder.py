"""OCI runtime specs from CRI requests; every concern has a module of its own.

These functions read files (the image's passwd, the node's devices, seccomp
profiles): call them in a worker thread. Everything they are given by an image or
a pod is hostile. InvalidArgument, in one line, is the pod's fault.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.cgroup_names import oci_cgroups_path
from noderuntime.node.spec.capabilities import oci_capabilities
from noderuntime.node.spec.devices import Devices, container_devices
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.inputs import ContainerInput, Pod
from noderuntime.node.spec.lsm import apparmor_profile, check_selinux
from noderuntime.node.spec.mounts import container_mounts, kernel_mounts, rootfs_propagation
from noderuntime.node.spec.namespaces import container_namespaces, root_namespaces
from noderuntime.node.spec.oci_process import DEFAULT_PATH, arguments, directory, environment
from noderuntime.node.spec.profiles import asked_seccomp
from noderuntime.node.spec.resources import oci_resources, oom_score_adj
from noderuntime.node.spec.seccomp import oci_seccomp
from noderuntime.node.spec.user import oci_user, root_user
from noderuntime.node.spec.userns import check_inside, oci_mappings
from noderuntime.node.spec.words import absolute, clean

Spec = dict[str, Any]

_OCI_VERSION = "1.1.0"
_ROOT_OOM_SCORE = -998
"""A sandbox's root container goes after everything that runs in it (kubelet: PodInfraOOMAdj)."""


def container_spec(pod: Pod, container: ContainerInput, facts: HostFacts) -> Spec:
    """Build the spec of one container (CreateContainer)."""
    context = container.config.linux.security_context
    devices = container_devices(container.config, makes_nodes=pod.user is None)
    spec: Spec = {
        "ociVersion": _OCI_VERSION,
        "process": _process(pod, container, facts),
        "root": {"path": str(container.rootfs), "readonly": context.readonly_rootfs},
        "mounts": container_mounts(pod, container.config, container.volumes) + devices.mounts,
        "linux": _linux(pod, container, facts, devices),
    }
    return _with_hostname(spec, pod)


def root_spec(pod: Pod, rootfs: Path, args: Sequence[str], facts: HostFacts) -> Spec:
    """Build the spec of a sandbox's own root container: read-only and without capabilities."""
    context = pod.config.linux.security_context
    user = root_user(context)
    check_inside(user, pod.user)
    linux: Spec = {
        **_mappings(pod),
        "namespaces": root_namespaces(pod),
        "cgroupsPath": oci_cgroups_path(pod.cgroup, pod.id, pod.driver),
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    }
    if not context.privileged:
        _put(linux, "seccomp", _seccomp(pod, asked_seccomp(context), (), facts))
    spec: Spec = {
        "ociVersion": _OCI_VERSION,
        "process": {
            "user": user,
            "args": list(args),
            "env": [f"PATH={DEFAULT_PATH}"],
            "cwd": "/",
            "noNewPrivileges": True,
            "oomScoreAdj": oom_score_adj(_ROOT_OOM_SCORE, facts),
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            one for one in kernel_mounts(pod, writable=False) if one["type"] in ("proc", "tmpfs", "devpts")
        ],
        "linux": linux,
    }
    return _with_hostname(spec, pod)


def exec_process(spec: Mapping[str, Any], command: Sequence[str], *, tty: bool = False) -> Spec:
    """Build the OCI process of an exec from the spec of its container (ExecSync, Exec)."""
    if not command or not command[0]:
        raise InvalidArgument("no command to run")
    inherited = ("user", "env", "cwd", "capabilities", "noNewPrivileges", "apparmorProfile")
    process = {key: value for key, value in spec["process"].items() if key in inherited}
    env = list(process.get("env", ()))
    if tty and not any(entry.startswith("TERM=") for entry in env):
        env.append("TERM=xterm")
    args = [clean(word, "the command") for word in command]
    return process | {"args": args, "env": env, "terminal": tty}


def _process(pod: Pod, container: ContainerInput, facts: HostFacts) -> Spec:
    config, image = container.config, container.image
    context = config.linux.security_context
    user = oci_user(context, image.user, container.rootfs)
    check_inside(user, pod.user)
    check_selinux(context.selinux_options)
    process: Spec = {
        "terminal": config.tty,
        "user": user,
        "args": arguments(config, image),
        "env": environment(config, image, pod.config.hostname or platform.node()),
        "cwd": directory(config, image),
        "capabilities": oci_capabilities(context, facts.capabilities),
        "noNewPrivileges": context.no_new_privs,
        "oomScoreAdj": oom_score_adj(config.linux.resources.oom_score_adj, facts),
    }
    if pod.handler != "gvisor":  # whose kernel has no security modules
        _put(process, "apparmorProfile", apparmor_profile(context, facts))
    return process


def _linux(pod: Pod, container: ContainerInput, facts: HostFacts, devices: Devices) -> Spec:
    config = container.config
    context = config.linux.security_context
    if context.privileged and not pod.config.linux.security_context.privileged:
        raise InvalidArgument("a privileged container cannot be in a pod that is not")
    own_cgroup = facts.cgroup_version == 2 and not context.privileged
    linux: Spec = {
        **_mappings(pod),
        "namespaces": container_namespaces(
            pod, context.namespace_options, container.target_pid, own_cgroup=own_cgroup
        ),
        "cgroupsPath": oci_cgroups_path(pod.cgroup, container.id, pod.driver),
        "resources": oci_resources(config.linux.resources, facts) | {"devices": devices.rules},
    }
    _put(linux, "devices", devices.nodes)
    _put(linux, "rootfsPropagation", rootfs_propagation(config))
    if not context.privileged:
        _put(linux, "maskedPaths", [absolute(path, "a masked path") for path in context.masked_paths])
        _put(linux, "readonlyPaths", [absolute(path, "a read-only path") for path in context.readonly_paths])
        bounding = oci_capabilities(context, facts.capabilities)["bounding"]
        _put(linux, "seccomp", _seccomp(pod, asked_seccomp(context), bounding, facts))
    return linux


def _mappings(pod: Pod) -> Spec:
    if pod.user is None:
        return {}
    return {"uidMappings": oci_mappings([pod.user.uids]), "gidMappings": oci_mappings([pod.user.gids])}


def _seccomp(
    pod: Pod, asked: api_pb2.SecurityProfile | None, capabilities: Collection[str], facts: HostFacts
) -> Spec | None:
    """Resolve the profile for a process's capabilities.

    The default one guards the node's kernel, which nothing in gVisor reaches, and relies on system calls
    that fail with ENOSYS; runsc lets them fail with EPERM, which ends programs instead of warning them.
    """
    default = api_pb2.SecurityProfile.RuntimeDefault
    if asked is None or (pod.handler == "gvisor" and asked.profile_type == default):
        return None
    return oci_seccomp(asked, capabilities, facts)


def _with_hostname(spec: Spec, pod: Pod) -> Spec:
    """Give gVisor the pod's name; with runc the pod's pinned UTS namespace has it."""
    if pod.handler == "gvisor" and pod.config.hostname:
        spec["hostname"] = clean(pod.config.hostname, "the hostname")
    return spec


def _put(target: Spec, key: str, value: object) -> None:
    """Set a key unless there is nothing to set."""
    if value:
        target[key] = value
