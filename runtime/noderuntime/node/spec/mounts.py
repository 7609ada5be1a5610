"""Mounts of a container: kernel filesystems, the pod's files, and the requested mounts."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.inputs import Pod
from noderuntime.node.spec.userns import oci_mappings
from noderuntime.node.spec.validation import check_absolute, check_text, quoted

Mount = dict[str, Any]

_SHM = "/dev/shm"  # noqa: S108 - a path in the container, or the node's own for hostIPC

_NO_VOLUMES: Mapping[int, Path] = MappingProxyType({})
_IMAGE_VOLUME = ("rbind", "rprivate", "ro", "nosuid", "nodev")

_PROPAGATION = {
    api_pb2.PROPAGATION_PRIVATE: "rprivate",
    api_pb2.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    api_pb2.PROPAGATION_BIDIRECTIONAL: "rshared",
}


def container_mounts(
    pod: Pod, config: api_pb2.ContainerConfig, volumes: Mapping[int, Path] = _NO_VOLUMES
) -> list[Mount]:
    """Return OCI ``mounts``. A requested mount replaces the default one at the same path.

    The pod's files are mounted between the requested mounts, parents first, so that a volume at ``/etc`` or
    ``/dev`` does not hide them. Kernel filesystems below a requested mount are left out.
    ``volumes`` are the mount points of image volumes on the node, by the index of the requested mount.
    """
    context = config.linux.security_context
    requested = [_requested(mount, volumes.get(index)) for index, mount in enumerate(config.mounts)]
    destinations = {mount["destination"] for mount in requested}
    kernel = kernel_mounts(pod, writable=context.privileged)
    files = _pod_files(pod, context.readonly_rootfs)
    return [
        *(mount for mount in kernel if destinations.isdisjoint(_with_parents(mount["destination"]))),
        *sorted(
            (*(file for file in files if file["destination"] not in destinations), *requested),
            key=lambda mount: mount["destination"].count("/"),
        ),
    ]


def kernel_mounts(pod: Pod, *, writable: bool) -> Iterator[Mount]:
    """Yield the mounts of /proc, /dev and /sys. With ``writable``, /sys and its cgroups are writable.

    With the node's network in a user namespace, the node's /sys is bind-mounted: the kernel allows only the
    owner of a network namespace to mount sysfs.
    """
    restricted = ["nosuid", "noexec", "nodev"]
    access = "rw" if writable else "ro"
    yield _mount("/proc", "proc", "proc", restricted)
    yield _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"])
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    yield _mount("/dev/pts", "devpts", "devpts", pts)
    yield _mount("/dev/mqueue", "mqueue", "mqueue", restricted)
    if pod.user is not None and "network" not in pod.namespaces:
        yield _mount("/sys", "bind", "/sys", ["rbind", "rprivate", *restricted, "rro"])
    else:
        yield _mount("/sys", "sysfs", "sysfs", [*restricted, access])
    yield _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*restricted, "relatime", access])


def rootfs_propagation(config: api_pb2.ContainerConfig) -> str:
    """Return OCI ``linux.rootfsPropagation``: the widest propagation that a mount requires, or empty."""
    requested = {mount.propagation for mount in config.mounts}
    if api_pb2.PROPAGATION_BIDIRECTIONAL in requested:
        return "rshared"
    return "rslave" if api_pb2.PROPAGATION_HOST_TO_CONTAINER in requested else ""


def _pod_files(pod: Pod, read_only: bool) -> Iterator[Mount]:
    """Yield the mounts of files that all containers of the pod share."""
    access = "ro" if read_only else "rw"
    shm = str(pod.shm) if pod.shm else _SHM
    yield _mount(_SHM, "bind", shm, ["rbind", "nosuid", "noexec", "nodev", "rw"])
    for destination, file in (("/etc/resolv.conf", pod.resolv_conf), ("/etc/hostname", pod.hostname)):
        if file is not None:
            yield _mount(destination, "bind", str(file), ["rbind", "rprivate", access])


def _with_parents(destination: str) -> set[str]:
    """Return a path and its parents."""
    path = PurePosixPath(destination)
    return {str(path), *map(str, path.parents)}


def _requested(mount: api_pb2.Mount, volume: Path | None) -> Mount:
    path = check_text(mount.container_path, "a mount's container_path")
    destination = posixpath.normpath(posixpath.join("/", path))
    if not path or destination == "/":
        raise InvalidArgument(f"a mount's container_path must not be {quoted(path)}")
    if volume is not None:
        return _mount(destination, "bind", str(volume), _IMAGE_VOLUME)
    source = _source(check_absolute(mount.host_path, f"the source of the mount at {quoted(destination)}"))
    options = ["rbind", _propagation(mount, source), _access(mount)]
    return _mount(destination, "bind", source, options) | _mappings(mount)


def _mappings(mount: api_pb2.Mount) -> Mount:
    """Return the ID mappings of a mount, which the OCI runtime applies."""
    if not mount.uidMappings and not mount.gidMappings:
        return {}
    if not mount.uidMappings or not mount.gidMappings:
        raise InvalidArgument(
            f"the mount at {quoted(mount.container_path)} must map both user and group IDs, or neither"
        )
    return {"uidMappings": oci_mappings(mount.uidMappings), "gidMappings": oci_mappings(mount.gidMappings)}


def _access(mount: api_pb2.Mount) -> str:
    if not mount.recursive_read_only:
        return "ro" if mount.readonly else "rw"
    if not mount.readonly or mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        raise InvalidArgument("a recursively read-only mount must be read-only and private")
    return "rro"


def _source(path: str) -> str:
    """Return the real path of a mount's source. A missing source is created as a directory."""
    try:
        if not os.path.exists(path):
            os.makedirs(path, 0o755, exist_ok=True)
        return os.path.realpath(path, strict=True)
    except FileExistsError as error:
        raise InvalidArgument(f"mount source {quoted(path)} is a symbolic link to a missing path") from error
    except OSError as error:
        raise invalid_argument(f"mount source {quoted(path)}", error) from error


def _propagation(mount: api_pb2.Mount, source: str) -> str:
    """Return the mount option. InvalidArgument if the source's mount lacks the required propagation."""
    option = _PROPAGATION.get(mount.propagation)
    if option is None:
        raise InvalidArgument(f"mount propagation {mount.propagation} is unknown")
    if mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        peers = mount_peers(source)
        required = ("shared:",) if option == "rshared" else ("shared:", "master:")
        if not any(peer.startswith(required) for peer in peers):
            raise InvalidArgument(f"mount source {quoted(source)} is not on a {option[1:]} mount")
    return option


def mount_peers(path: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> Sequence[str]:
    """Return the propagation fields of the mount that contains a real path, proc_pid_mountinfo(5)."""
    best: tuple[int, Sequence[str]] = (-1, ())
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if os.path.commonpath([point, path]) == point and len(point) >= best[0]:
            best = len(point), fields[6 : fields.index("-")]
    return best[1]


def _mount(destination: str, kind: str, source: str, options: Sequence[str]) -> Mount:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
