"""CreateContainer: an intent, a root filesystem, a bundle, and the runtime's ``create`` under a monitor."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noderuntime.core import log
from noderuntime.core.blocking import FILES, apart
from noderuntime.core.errors import FailedPrecondition, InvalidArgument, NotFound, ToolError
from noderuntime.core.ids import new_id
from noderuntime.core.undo import Undo
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import Image
from noderuntime.images.reference import name_of
from noderuntime.lifecycle.containers.build import (
    add_cdi_devices,
    image_ref,
    make_log_directory,
    mount_image_volumes,
    remove_unused_log,
    write_spec,
)
from noderuntime.lifecycle.containers.intents import free_name, keep_undone
from noderuntime.lifecycle.containers.kill import erase
from noderuntime.lifecycle.containers.oom import note_kills
from noderuntime.lifecycle.containers.pod import cgroup_of, pod_of, user_of
from noderuntime.lifecycle.containers.signals import stop_signal
from noderuntime.lifecycle.containers.volumes import make_volumes, remove_volumes
from noderuntime.lifecycle.ledger.ledger import container_name
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.log_context import bind_container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.cgroup_names import monitor_cgroup
from noderuntime.node.monitor.base import Monitored, MonitorRequest
from noderuntime.node.spec import builder
from noderuntime.node.spec.inputs import ContainerInput
from noderuntime.node.spec.validation import check_path

_log = log.get(__name__)

_NAME_LIMIT = 1024


async def create_container(parts: Parts, sandbox_id: str, config: api_pb2.ContainerConfig) -> str:
    """Create a container in a sandbox that is ready, and return its ID (CRI CreateContainer).

    A retry of a cancelled call gets the container that was created meanwhile.
    AlreadyExists if another container has the name and attempt. After an error nothing is left. A failure of
    the runtime's ``create`` is an error of StartContainer: clients retry a create, but count failed starts.
    """
    sandbox = parts.ledger.sandboxes.get(sandbox_id)
    if not config.metadata.name or len(config.metadata.name) > _NAME_LIMIT:
        raise InvalidArgument(f"a container needs a name of at most {_NAME_LIMIT} characters")
    key = container_name(sandbox.id, config.metadata)
    request = config.SerializeToString(deterministic=True)
    name = f"CreateContainer {config.metadata.name}"
    return await parts.work.once(key, request, lambda: _create(parts, sandbox, config), name=name)


async def _create(parts: Parts, sandbox: Sandbox, config: api_pb2.ContainerConfig) -> str:
    async with parts.work.lock(sandbox.id):
        if not sandbox.ready:
            raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
        parts.executor(sandbox.handler)  # fails if a reload has removed the handler
        await _check_mounts(parts, sandbox.handler, config)
        image = await parts.images.image(config.image.image)
        container = _record(sandbox, config, image)
        bind_container(parts.ledger, container)
        await free_name(parts, sandbox, config.metadata)
        async with Undo(f"create container {container.id}") as undo:
            undo.add("record", lambda: _close_record(parts, container, undo))
            await parts.ledger.containers.add(container)
            await _make(parts, sandbox, container, image, undo)
            container.prepared_at = time.time_ns()
            await parts.ledger.containers.save(container)
    parts.events.publish(container.id, sandbox.id, api_pb2.CONTAINER_CREATED_EVENT)
    _log.info("container created", container=container.id, sandbox=sandbox.id, image=container.image_name)
    return container.id


async def _check_mounts(parts: Parts, handler: str, config: api_pb2.ContainerConfig) -> None:
    """Refuse mounts that the handler does not support. It is probed only if the request has such mounts."""
    recursive = any(one.recursive_read_only for one in config.mounts)
    mapped = any(one.uidMappings or one.gidMappings for one in config.mounts)
    if not recursive and not mapped:
        return
    features = await parts.probes.features(handler)
    if recursive and not features.recursive_read_only_mounts:  # cri-api defines the error's first word
        raise InvalidArgument(f"RROUnsupported: handler {handler} offers no recursively read-only mounts")
    if mapped and not features.user_namespaces:
        raise InvalidArgument(f"handler {handler} offers no mounts with mapped IDs on this node")


def _record(sandbox: Sandbox, config: api_pb2.ContainerConfig, image: Image) -> Container:
    requested = config.image.user_specified_image or config.image.image
    return Container(
        id=new_id(),
        sandbox_id=sandbox.id,
        config=config,
        created_at=time.time_ns(),
        image_id=image.id,
        image_ref=image_ref(image, config.image.user_specified_image),
        image_name=name_of((*image.repo_tags, *image.repo_digests), requested) or config.image.image,
        log_path=_log_path(sandbox.config.log_directory, config.log_path),
        stop_signal=stop_signal(config.stop_signal, image.config.stop_signal),
        resources=config.linux.resources,
    )


async def _close_record(parts: Parts, container: Container, undo: Undo) -> None:
    """Drop the record, or keep it as an ended container that the caller can remove."""
    if undo.complete:
        await parts.ledger.containers.drop(container)
    else:
        await keep_undone(parts, container)


async def _make(parts: Parts, sandbox: Sandbox, container: Container, image: Image, undo: Undo) -> None:
    """Create all objects that the record names."""
    paths = parts.paths.container(container.id)
    undo.add("bundle", lambda: parts.host.remove_tree(paths.bundle))
    await FILES.run(lambda: paths.rootfs.mkdir(mode=0o700, parents=True))
    if container.log_path:
        await make_log_directory(posixpath.dirname(container.log_path))
    undo.add("snapshot", lambda: parts.images.release(container.id, paths.rootfs))
    labels = {"io.kubernetes.cri.container-id": container.id, "io.kubernetes.cri.sandbox-id": sandbox.id}
    user = user_of(parts, sandbox)
    with parts.metrics.phase("snapshot", sandbox.handler):
        await parts.images.prepare(container.id, image, paths.rootfs, labels, user)
        images = await mount_image_volumes(parts, container)
        undo.add("volumes", lambda: remove_volumes(parts, container.id))
        volumes = await make_volumes(parts, container, image, user)
    wanted = ContainerInput(
        id=container.id,
        config=_with_mounts(container.config, volumes),
        image=image.config,
        rootfs=paths.rootfs,
        volumes=images,
        target_pid=_target_pid(parts, sandbox, container.config),
    )
    spec = await _spec(parts, sandbox, wanted)
    container.user.CopyFrom(_user(spec["process"]["user"]))
    await FILES.run(write_spec, paths, spec)
    await note_kills(parts, sandbox, container)
    try:
        made = await _run_monitor(parts, sandbox, container, undo)
    except ToolError as error:
        await _keep_failure(parts, sandbox, container, error)
        return
    if user is not None:  # a process in the user namespace has no permission to do that
        await parts.host.give_stdio(made.process, user.uids.outside + container.user.uid)


async def _spec(parts: Parts, sandbox: Sandbox, wanted: ContainerInput) -> dict[str, Any]:
    pod = pod_of(parts, sandbox)
    spec = await apart(  # it resolves the sources of mounts, which can be on a volume that hangs
        lambda: builder.container_spec(pod, wanted, parts.facts),
        what=f"look up the mounts of container {wanted.config.metadata.name}",
        subject=f"mounts of {sandbox.id}",
    )
    await add_cdi_devices(parts, sandbox.handler, spec, wanted.config)
    parts.executor(sandbox.handler).adapt_spec(spec, sandbox.id, is_root=False)
    return spec


def _with_mounts(config: api_pb2.ContainerConfig, more: Sequence[api_pb2.Mount]) -> api_pb2.ContainerConfig:
    """Return a copy with more mounts after the requested ones, whose indexes stay the same."""
    merged = api_pb2.ContainerConfig()
    merged.CopyFrom(config)
    merged.mounts.extend(more)
    return merged


async def _run_monitor(parts: Parts, sandbox: Sandbox, container: Container, undo: Undo) -> Monitored:
    executor = parts.executor(sandbox.handler)
    runtime = executor.monitor_runtime(container.id, sandbox.id, is_root=False)
    undo.add("log", lambda: remove_unused_log(container.log_path))
    undo.add("monitor's files", lambda: parts.monitor.forget(container.id))
    undo.add("runtime's container", lambda: erase(parts, sandbox, container.id))
    request = MonitorRequest(
        container_id=container.id,
        name=container.config.metadata.name,
        bundle=parts.paths.container(container.id).bundle,
        runtime=runtime.path,
        runtime_flags=runtime.flags,
        cgroup=monitor_cgroup(cgroup_of(parts, sandbox)),
        log_path=Path(container.log_path) if container.log_path else None,
        tty=container.config.tty,
        stdin=container.config.stdin,
        stdin_once=container.config.stdin_once,
    )
    with parts.metrics.phase("create", sandbox.handler):
        made = await parts.monitor.create(request)
    container.process, container.monitor = made.process, made.monitor
    return made


async def _keep_failure(parts: Parts, sandbox: Sandbox, container: Container, error: ToolError) -> None:
    """Remove what a failed create has left in the runtime, and record the failure for the start."""
    await erase(parts, sandbox, container.id)
    await parts.monitor.forget(container.id)
    container.start_error = str(error)
    _log.info("the runtime failed to create a container", container=container.id, error=error)


def _log_path(directory: str, path: str) -> str:
    """Return the absolute path of the log; empty if the pod or the container requests no log."""
    if not directory or not path:
        return ""
    if posixpath.isabs(path) or path.endswith("/"):
        raise InvalidArgument(f"log path {path[:80]!r} must be a file in the pod's log directory")
    return check_path(posixpath.join(directory, path), "log path")


def _target_pid(parts: Parts, sandbox: Sandbox, config: api_pb2.ContainerConfig) -> int | None:
    """Return the PID of the container whose PID namespace the new one joins; None if it joins none."""
    options = config.linux.security_context.namespace_options
    if options.pid != api_pb2.TARGET:
        return None
    target = parts.ledger.containers.find(options.target_id)
    if target is None or target.sandbox_id != sandbox.id:
        target_id = options.target_id[:64]
        raise NotFound(f"sandbox {sandbox.id} has no container {target_id!r} (PID namespace target)")
    if not target.running or target.process is None:
        raise FailedPrecondition(f"container {target.id} (PID namespace target) is not running")
    return target.process.pid


def _user(user: dict[str, Any]) -> api_pb2.LinuxContainerUser:
    return api_pb2.LinuxContainerUser(
        uid=user["uid"], gid=user["gid"], supplemental_groups=user.get("additionalGids", ())
    )
