"""Builds OCI runtime specs from CRI requests. Each concern has a module of its own.

The functions read files (the image's passwd, the node's devices, seccomp profiles) and block: call them
in a worker thread. Input from images and pods is untrusted. InvalidArgument, one line, means that the
request is invalid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.cgroup_names import oci_cgroups_path
from noderuntime.node.spec.capabilities import oci_capabilities
from noderuntime.node.spec.devices import Devices, container_devices
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.hostname import hostname_of
from noderuntime.node.spec.inputs import ContainerInput, Pod
from noderuntime.node.spec.lsm import apparmor_profile, check_selinux
from noderuntime.node.spec.mounts import container_mounts, kernel_mounts, rootfs_propagation
from noderuntime.node.spec.namespaces import container_namespaces, root_namespaces
from noderuntime.node.spec.oci_process import DEFAULT_PATH, arguments, directory, environment
from noderuntime.node.spec.profiles import requested_seccomp
from noderuntime.node.spec.resources import oci_resources, oom_score_adj
from noderuntime.node.spec.seccomp import oci_seccomp
from noderuntime.node.spec.user import oci_user, root_user
from noderuntime.node.spec.userns import check_ids_mapped, oci_mappings
from noderuntime.node.spec.validation import check_absolute, check_text

Spec = dict[str, Any]

_OCI_VERSION = "1.1.0"
_ROOT_OOM_SCORE = -998
"""The OOM killer kills a sandbox's root container after the pod's containers (kubelet: PodInfraOOMAdj)."""


def container_spec(pod: Pod, container: ContainerInput, facts: HostFacts) -> Spec:
    """Return the OCI spec of a container (RuntimeService.CreateContainer)."""
    context = container.config.linux.security_context
    devices = container_devices(container.config, can_mknod=pod.user is None)
    spec: Spec = {
        "ociVersion": _OCI_VERSION,
        "process": _process(pod, container, facts),
        "root": {"path": str(container.rootfs), "readonly": context.readonly_rootfs},
        "mounts": container_mounts(pod, container.config, container.volumes) + devices.mounts,
        "linux": _linux(pod, container, facts, devices),
    }
    return _with_hostname(spec, pod)


def root_spec(pod: Pod, rootfs: Path, args: Sequence[str], facts: HostFacts) -> Spec:
    """Return the OCI spec of a sandbox's root container, which is read-only and has no capabilities."""
    context = pod.config.linux.security_context
    user = root_user(context)
    check_ids_mapped(user, pod.user)
    linux: Spec = {
        **_mappings(pod),
        "namespaces": root_namespaces(pod),
        "cgroupsPath": oci_cgroups_path(pod.cgroup, pod.id, pod.driver),
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    }
    if not context.privileged:
        _set(linux, "seccomp", _seccomp(pod, requested_seccomp(context), (), facts))
    spec: Spec = {
        "ociVersion": _OCI_VERSION,
        "process": {
            "user": user,
            "args": list(args),
            "env": [f"PATH={DEFAULT_PATH}"],
            "cwd": "/",
            "noNewPrivileges": True,
            "oomScoreAdj": oom_score_adj(_ROOT_OOM_SCORE, facts),
            "rlimits": _rlimits(facts),
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            mount
            for mount in kernel_mounts(pod, writable=False)
            if mount["type"] in ("proc", "tmpfs", "devpts")
        ],
        "linux": linux,
    }
    return _with_hostname(spec, pod)


def exec_process(spec: Mapping[str, Any], command: Sequence[str], *, tty: bool = False) -> Spec:
    """Return the OCI process of an exec, based on the container's spec (ExecSync, Exec)."""
    if not command or not command[0]:
        raise InvalidArgument("the command to run is empty")
    inherited = ("user", "env", "cwd", "capabilities", "noNewPrivileges", "apparmorProfile", "rlimits")
    process = {key: value for key, value in spec["process"].items() if key in inherited}
    env = list(process.get("env", ()))
    if tty and not any(entry.startswith("TERM=") for entry in env):
        env.append("TERM=xterm")
    args = [check_text(word, "the command") for word in command]
    return process | {"args": args, "env": env, "terminal": tty}


def _process(pod: Pod, container: ContainerInput, facts: HostFacts) -> Spec:
    config, image = container.config, container.image
    context = config.linux.security_context
    user = oci_user(context, image.user, container.rootfs)
    check_ids_mapped(user, pod.user)
    check_selinux(context.selinux_options)
    process: Spec = {
        "terminal": config.tty,
        "user": user,
        "args": arguments(config, image),
        "env": environment(config, image, hostname_of(pod.config)),
        "cwd": directory(config, image),
        "capabilities": oci_capabilities(context, facts.capabilities),
        "noNewPrivileges": context.no_new_privs,
        "oomScoreAdj": oom_score_adj(config.linux.resources.oom_score_adj, facts),
        "rlimits": _rlimits(facts),
    }
    if not pod.own_kernel:  # gVisor's kernel has no security modules
        _set(process, "apparmorProfile", apparmor_profile(context, facts))
    return process


def _rlimits(facts: HostFacts) -> list[Spec]:
    soft, hard = facts.open_files
    return [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}]


def _linux(pod: Pod, container: ContainerInput, facts: HostFacts, devices: Devices) -> Spec:
    config = container.config
    context = config.linux.security_context
    if context.privileged and not pod.config.linux.security_context.privileged:
        raise InvalidArgument("a privileged container requires a privileged pod")
    own_cgroup = facts.cgroup_version == 2 and not context.privileged
    linux: Spec = {
        **_mappings(pod),
        "namespaces": container_namespaces(
            pod, context.namespace_options, container.target_pid, own_cgroup=own_cgroup
        ),
        "cgroupsPath": oci_cgroups_path(pod.cgroup, container.id, pod.driver),
        "resources": oci_resources(config.linux.resources, facts) | {"devices": devices.rules},
    }
    _set(linux, "devices", devices.nodes)
    _set(linux, "rootfsPropagation", rootfs_propagation(config))
    if not context.privileged:
        _set(linux, "maskedPaths", [check_absolute(path, "a masked path") for path in context.masked_paths])
        _set(
            linux,
            "readonlyPaths",
            [check_absolute(path, "a read-only path") for path in context.readonly_paths],
        )
        bounding = oci_capabilities(context, facts.capabilities)["bounding"]
        _set(linux, "seccomp", _seccomp(pod, requested_seccomp(context), bounding, facts))
    return linux


def _mappings(pod: Pod) -> Spec:
    if pod.user is None:
        return {}
    return {"uidMappings": oci_mappings([pod.user.uids]), "gidMappings": oci_mappings([pod.user.gids])}


def _seccomp(
    pod: Pod, profile: api_pb2.SecurityProfile | None, capabilities: Collection[str], facts: HostFacts
) -> Spec | None:
    """Return ``linux.seccomp`` for a process with these capabilities, or None for unconfined.

    RuntimeDefault is not applied in gVisor. The profile protects the node's kernel, which processes in
    gVisor cannot reach. It also relies on blocked system calls failing with ENOSYS, but in runsc they fail
    with EPERM, on which programs exit instead of falling back.
    """
    default = api_pb2.SecurityProfile.RuntimeDefault
    if profile is None or (pod.own_kernel and profile.profile_type == default):
        return None
    return oci_seccomp(profile, capabilities, facts)


def _with_hostname(spec: Spec, pod: Pod) -> Spec:
    """Set the hostname of a pod with its own kernel. Other pods have it in their pinned UTS namespace."""
    if pod.own_kernel:
        spec["hostname"] = hostname_of(pod.config)
    return spec


def _set(target: Spec, key: str, value: object) -> None:
    """Set a key if the value is not empty."""
    if value:
        target[key] = value
