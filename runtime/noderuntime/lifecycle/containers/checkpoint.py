"""CheckpointContainer: write a running container to an archive for examination elsewhere. It keeps running.

The archive has the files that checkpoint tools expect:

    checkpoint/…      CRIU's images of the processes
    dump.log          CRIU's log; stats-dump: how long the dump took
    config.dump       the container's identity; status.dump and spec.dump: its CRI status and OCI spec
    rootfs-diff.tar   its changes to the root filesystem, as a layer
    container.log     a copy of its log
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import tarfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from noderuntime.core import log, tasks
from noderuntime.core.blocking import FILES, apart
from noderuntime.core.errors import FailedPrecondition, InvalidArgument, NoderuntimeError, file_error
from noderuntime.lifecycle.containers.kill import cgroup
from noderuntime.lifecycle.containers.pod import user_of
from noderuntime.lifecycle.containers.status import describe
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host.base import UserNamespace
from noderuntime.node.host.changes import upper_directory, write_changes
from noderuntime.node.spec.validation import check_path

_log = log.get(__name__)

DIRECTORY = "checkpoints"
"""Subdirectory of the state directory where archives are assembled. It is emptied when the daemon starts."""
DEFAULT_SECONDS = 10.0
"""CRI's default timeout, for requests without one."""
_ARCHIVE_SECONDS = 300.0
"""Seconds that writing an archive can take. Meanwhile the container can be stopped, but not removed."""
_END_SECONDS = 5.0
"""Seconds that a dump can take to end after SIGKILL."""


async def checkpoint_container(parts: Parts, container_id: str, location: str, timeout: float) -> None:
    """Write an archive of a running container to a path (CRI CheckpointContainer).

    DeadlineExceeded if the dump of its processes takes more than ``timeout`` seconds
    (:data:`DEFAULT_SECONDS` if that is 0), FailedPrecondition if it does not run or the node lacks CRIU,
    Unimplemented if its handler has no checkpoints. After an error no archive is left, and the container
    keeps running.
    """
    container = parts.ledger.containers.get(container_id)
    check_path(location, "checkpoint location")
    if location.endswith("/"):
        raise InvalidArgument(f"checkpoint location {location[:80]!r} must be the path of a file")
    directory = posixpath.dirname(location)
    if not await apart(
        lambda: os.path.isdir(directory), what=f"look up {directory}", subject=directory, abandon=True
    ):
        raise InvalidArgument(f"the directory of checkpoint location {location[:80]!r} does not exist")
    if not container.running:
        raise FailedPrecondition(f"container {container.id} is not running")
    await parts.work.finish(
        _checkpoint(parts, container, Path(location), timeout if timeout > 0 else DEFAULT_SECONDS),
        name=f"CheckpointContainer {container.id}",
    )


async def _checkpoint(parts: Parts, container: Container, target: Path, timeout: float) -> None:
    work = _directory(parts, container)
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    async with parts.work.lock(container.id):
        try:
            await FILES.run(lambda: work.mkdir(mode=0o700, parents=True, exist_ok=True))
            await _dump(parts, sandbox, container, timeout)
            user = user_of(parts, sandbox)
            await apart(
                lambda: _archive(parts, container, work, target, user),
                what=f"write checkpoint {target}",
                seconds=_ARCHIVE_SECONDS,
                subject=str(target.parent),
            )
        finally:
            await parts.host.remove_tree(work)
    _log.info("container checkpointed", container=container.id, location=target)


def _directory(parts: Parts, container: Container) -> Path:
    return parts.config.server.state_dir / DIRECTORY / container.id


async def _dump(parts: Parts, sandbox: Sandbox, container: Container, timeout: float) -> None:
    """Dump the container's processes with CRIU; they are released afterwards, even if the dump fails.

    A release that fails does not fail the dump; it is repeated in the background.
    """
    work, executor = _directory(parts, container), parts.executor(sandbox.handler)
    async with _network(parts, sandbox):
        container.checkpointing_at = time.time_ns()
        await parts.ledger.containers.save(container)
        try:
            await executor.checkpoint(container.id, sandbox.id, work, timeout=timeout)
        finally:
            try:
                await _release(parts, sandbox, container)
            except NoderuntimeError as error:
                _log.warning("container not released after its dump", container=container.id, error=error)
                what = f"release container {container.id} after its dump"
                release = parts.retries.attempt(what, partial(end_dump, parts, container))
                parts.work.background(release, name=what)


def _network(parts: Parts, sandbox: Sandbox) -> tasks.Lock:
    """Return the lock of dumps of one pod: each blocks and unblocks the network that its containers share."""
    return parts.work.lock(f"{sandbox.id} dump")


async def end_dump(parts: Parts, container: Container) -> None:
    """Kill the dump that an earlier daemon began, and release the container.

    Does nothing without a dump or a pod. A dump that this daemon began is awaited.
    """
    sandbox = parts.ledger.sandboxes.find(container.sandbox_id)
    if sandbox is None:
        return
    async with _network(parts, sandbox):
        if not container.checkpointing_at:
            return
        for process in await parts.host.processes_with("checkpoint", str(_directory(parts, container))):
            await parts.host.kill_tree(process)
            await parts.host.wait(process, timeout=_END_SECONDS)
        await _release(parts, sandbox, container)
        _log.warning("interrupted checkpoint aborted", container=container.id)


async def _release(parts: Parts, sandbox: Sandbox, container: Container) -> None:
    """Thaw the container and unlock its pod's network, if it has one: a killed CRIU leaves both blocked."""
    await parts.host.thaw_cgroup(cgroup(parts, sandbox, container.id))
    if sandbox.ready and sandbox.netns:
        await parts.host.remove_network_lock(Path(sandbox.netns))
    container.checkpointing_at = 0
    await parts.ledger.containers.save(container)


def _archive(
    parts: Parts, container: Container, work: Path, target: Path, user: UserNamespace | None
) -> None:
    """Add the files that CRIU does not write, and pack all files into the archive."""
    paths = parts.paths.container(container.id)
    partial = target.with_name(f".{target.name}.partial")
    try:
        (work / "config.dump").write_text(json.dumps(_identity(parts, container)), encoding="utf-8")
        status = MessageToDict(describe(container), preserving_proto_field_name=True)
        (work / "status.dump").write_text(json.dumps(status), encoding="utf-8")
        shutil.copyfile(paths.spec, work / "spec.dump")
        if container.log_path and os.path.isfile(container.log_path):
            shutil.copyfile(container.log_path, work / "container.log")
        upper = upper_directory(paths.rootfs)
        if upper is not None:
            write_changes(upper, work / "rootfs-diff.tar", user)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(work, arcname=".")
        partial.replace(target)
    except OSError as error:
        raise file_error(f"write checkpoint {target}", error) from error
    finally:
        partial.unlink(missing_ok=True)


def _identity(parts: Parts, container: Container) -> dict[str, str | bool]:
    sandbox = parts.ledger.sandboxes.get(container.sandbox_id)
    return {
        "id": container.id,
        "name": container.config.metadata.name,
        "rootfsImage": container.image_name,
        "rootfsImageRef": container.image_id,
        "rootfsImageName": container.image_name,
        "runtime": sandbox.handler,
        "createdTime": datetime.fromtimestamp(container.created_at / 1e9, UTC).isoformat(),
        "checkpointedTime": datetime.now(UTC).isoformat(),
        "restored": False,
    }
