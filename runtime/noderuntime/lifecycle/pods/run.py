"""RunPodSandbox: an intent, files, pinned namespaces, the network, and a root container where needed."""

from __future__ import annotations

import time
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument
from noderuntime.core.ids import new_id
from noderuntime.core.tasks import together
from noderuntime.core.undo import Undo
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.build import make_log_directory
from noderuntime.lifecycle.containers.pod import cgroup_of, user_of, wants_own_ipc
from noderuntime.lifecycle.ledger.ledger import sandbox_name
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.log_context import bind_sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods import release
from noderuntime.lifecycle.pods.etc_files import resolv_conf, write_files
from noderuntime.lifecycle.pods.intents import free_name, keep_undone
from noderuntime.lifecycle.pods.root import check_root, create_root, needs_root, start_root
from noderuntime.lifecycle.pods.sysctls import sysctls_of_interface, sysctls_of_namespaces
from noderuntime.node.host.base import Mount, NamespaceKind
from noderuntime.node.network.base import wants_pod_network
from noderuntime.node.network.capabilities import capability_args, cni_args
from noderuntime.node.spec.hostname import hostname_of
from noderuntime.node.spec.limits import check_limits
from noderuntime.node.spec.lsm import check_selinux
from noderuntime.node.spec.validation import check_path

_log = log.get(__name__)

_NAME_LIMIT = 1024
_SHM_OPTIONS = ("nosuid", "nodev", "noexec", "mode=1777", "size=65536k")


async def run_pod_sandbox(parts: Parts, config: api_pb2.PodSandboxConfig, handler: str) -> str:
    """Create a sandbox, make it ready for containers and return its ID (CRI RunPodSandbox).

    A retry gets the sandbox that was finished after the first call was cancelled. InvalidArgument for a
    request that can never work, AlreadyExists if another sandbox has the name and attempt. After an
    error, nothing is left.
    """
    parts.executor(handler)
    _check(config)
    key = sandbox_name(config.metadata)
    request = handler, config.SerializeToString(deterministic=True)
    name = f"RunPodSandbox {config.metadata.namespace}/{config.metadata.name}"
    return await parts.work.once(key, request, lambda: _run(parts, config, handler), name=name)


def _check(config: api_pb2.PodSandboxConfig) -> None:
    metadata = config.metadata
    for what in ("name", "namespace", "uid"):
        value = getattr(metadata, what)
        if len(value) > _NAME_LIMIT or (what == "name" and not value):
            raise InvalidArgument(f"a sandbox needs a {what} of at most {_NAME_LIMIT} characters")
    check_limits(config.linux.overhead)
    check_limits(config.linux.resources)
    check_selinux(config.linux.security_context.selinux_options)
    hostname_of(config)
    resolv_conf(config.dns_config)
    if wants_pod_network(config):
        capability_args(config)
        cni_args("", config)
    if config.log_directory:
        check_path(config.log_directory, "log directory")


async def _run(parts: Parts, config: api_pb2.PodSandboxConfig, handler: str) -> str:
    await free_name(parts, config.metadata)
    sandbox = Sandbox(id=new_id(), handler=handler, config=config, created_at=time.time_ns())
    if wants_pod_network(config):
        sandbox.netns = str(parts.paths.sandbox(sandbox.id).netns)
        sandbox.cni_result = await parts.network.configuration()
    cgroup_of(parts, sandbox)
    if user_of(parts, sandbox) and not (await parts.probes.features(handler)).user_namespaces:
        raise InvalidArgument(
            f"handler {handler} does not support user namespaces on this node (hostUsers: false)"
        )
    parts.executor(handler)  # a reload may have removed it meanwhile
    bind_sandbox(sandbox)
    async with Undo(f"run sandbox {sandbox.id}") as undo:
        undo.add("record", lambda: _close_record(parts, sandbox, undo))
        await parts.ledger.sandboxes.add(sandbox)
        await _make(parts, sandbox, undo)
        await check_root(parts, sandbox)
        sandbox.ready_at = time.time_ns()
        await parts.ledger.sandboxes.save(sandbox)
    parts.events.publish(sandbox.id, sandbox.id, api_pb2.CONTAINER_CREATED_EVENT)
    parts.events.publish(sandbox.id, sandbox.id, api_pb2.CONTAINER_STARTED_EVENT)
    took = (sandbox.ready_at - sandbox.created_at) // 1_000_000
    _log.info("sandbox is ready", sandbox=sandbox.id, handler=handler, ms=took)
    return sandbox.id


async def _close_record(parts: Parts, sandbox: Sandbox, undo: Undo) -> None:
    """Drop the record, or keep it as a sandbox that is not ready, which the caller has to remove."""
    if undo.complete:
        await parts.ledger.sandboxes.drop(sandbox)
    else:
        await keep_undone(parts, sandbox)


async def _make(parts: Parts, sandbox: Sandbox, undo: Undo) -> None:
    """Create everything that the record names."""
    paths = parts.paths.sandbox(sandbox.id)
    undo.add("files", lambda: parts.host.remove_tree(paths.dir))
    await FILES.run(write_files, paths, sandbox.config, user_of(parts, sandbox))
    if sandbox.config.log_directory:
        await make_log_directory(sandbox.config.log_directory)
    undo.add("namespaces and mounts", lambda: release.unpin(parts, sandbox))
    with parts.metrics.phase("namespaces", sandbox.handler):
        await together(
            _mount_shm(parts, sandbox),
            _pin(parts, sandbox),
            _keep_record(parts, sandbox),
            name="prepare a sandbox",
        )
    undo.add("cgroups", lambda: release.remove_cgroups(parts, sandbox))
    if needs_root(parts, sandbox):
        undo.add("root container", lambda: release.root(parts, sandbox))
        undo.add("network", lambda: release.detach(parts, sandbox))
        await together(_attach(parts, sandbox), create_root(parts, sandbox), name="set up a sandbox")
        await start_root(parts, sandbox)
    else:
        undo.add("network", lambda: release.detach(parts, sandbox))
        await _attach(parts, sandbox)


async def _mount_shm(parts: Parts, sandbox: Sandbox) -> None:
    if wants_own_ipc(sandbox.config):
        target, user = parts.paths.sandbox(sandbox.id).shm, user_of(parts, sandbox)
        owner = () if user is None else (f"uid={user.root[0]}", f"gid={user.root[1]}")
        await parts.host.mount(Mount("shm", target, "tmpfs", _SHM_OPTIONS + owner))


async def _pin(parts: Parts, sandbox: Sandbox) -> None:
    """Create and pin the namespaces. Sysctls of other namespaces are refused even if none is created."""
    pins, user = pins_of(parts, sandbox), user_of(parts, sandbox)
    sysctls = sysctls_of_namespaces(parts, sandbox)
    if pins or sysctls or user:
        hostname = hostname_of(sandbox.config) if "uts" in pins else None
        await parts.host.pin_namespaces(pins, hostname=hostname, sysctls=sysctls, user=user)


async def _keep_record(parts: Parts, sandbox: Sandbox) -> None:
    """Have the record survive a power cut if plugins are called, because they keep state on disk."""
    if sandbox.netns:
        await parts.ledger.sync()


def pins_of(parts: Parts, sandbox: Sandbox) -> dict[NamespaceKind, Path]:
    """Return the pins of the sandbox's own namespaces."""
    paths = parts.paths.sandbox(sandbox.id)
    pins: dict[NamespaceKind, Path] = {}
    if wants_pod_network(sandbox.config):
        pins |= {"net": paths.netns, "uts": paths.uts}
    if wants_own_ipc(sandbox.config):
        pins["ipc"] = paths.ipc
    return pins


async def _attach(parts: Parts, sandbox: Sandbox) -> None:
    if sandbox.netns:
        with parts.metrics.phase("network", sandbox.handler):
            attachment = await parts.network.attach(
                sandbox.id, sandbox.netns, sandbox.config, sandbox.cni_result
            )
        sandbox.ips, sandbox.cni_result = attachment.ips, attachment.result
        await parts.host.set_sysctls(Path(sandbox.netns), sysctls_of_interface(sandbox.config))
