"""Mounts of a container: the kernel's filesystems, the pod's files, and what the pod asks for."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.inputs import Pod
from noderuntime.node.spec.userns import oci_mappings
from noderuntime.node.spec.words import absolute, clean, shown

Mount = dict[str, Any]

_SHM = "/dev/shm"  # noqa: S108 - a place inside the container, or all of the node's for hostIPC

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
    """Return OCI ``mounts``, parents first; what the pod mounts replaces ours at the same place.

    ``volumes`` are images that are mounted on the node, by the number of the mount that wants them.
    """
    context = config.linux.security_context
    asked = [_asked(one, volumes.get(number)) for number, one in enumerate(config.mounts)]
    places = {one["destination"] for one in asked}
    ours = [
        one
        for one in (
            *kernel_mounts(pod, writable=context.privileged),
            *_pod_files(pod, context.readonly_rootfs),
        )
        if one["destination"] not in places
        and not ("/dev" in places and one["destination"].startswith("/dev/"))
    ]
    return ours + sorted(asked, key=lambda one: one["destination"].count("/"))


def kernel_mounts(pod: Pod, *, writable: bool) -> Iterator[Mount]:
    """Yield /proc, /dev and /sys; privileged containers may write to /sys and its cgroups.

    The kernel lets only the owner of a network namespace mount its /sys.
    """
    guarded = ["nosuid", "noexec", "nodev"]
    access = "rw" if writable else "ro"
    yield _mount("/proc", "proc", "proc", guarded)
    yield _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"])
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    yield _mount("/dev/pts", "devpts", "devpts", pts)
    yield _mount("/dev/mqueue", "mqueue", "mqueue", guarded)
    if pod.user is not None and "network" not in pod.namespaces:
        yield _mount("/sys", "bind", "/sys", ["rbind", "rprivate", *guarded, "rro"])
    else:
        yield _mount("/sys", "sysfs", "sysfs", [*guarded, access])
    yield _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*guarded, "relatime", access])


def rootfs_propagation(config: api_pb2.ContainerConfig) -> str:
    """Return OCI ``linux.rootfsPropagation``: as open as the most open mount needs it."""
    asked = {one.propagation for one in config.mounts}
    if api_pb2.PROPAGATION_BIDIRECTIONAL in asked:
        return "rshared"
    return "rslave" if api_pb2.PROPAGATION_HOST_TO_CONTAINER in asked else ""


def _pod_files(pod: Pod, read_only: bool) -> Iterator[Mount]:
    """Yield what all containers of the pod share."""
    access = "ro" if read_only else "rw"
    shm = str(pod.shm) if pod.shm else _SHM
    yield _mount(_SHM, "bind", shm, ["rbind", "nosuid", "noexec", "nodev", "rw"])
    for place, file in (("/etc/resolv.conf", pod.resolv_conf), ("/etc/hostname", pod.hostname)):
        if file is not None:
            yield _mount(place, "bind", str(file), ["rbind", "rprivate", access])


def _asked(mount: api_pb2.Mount, volume: Path | None) -> Mount:
    place = posixpath.normpath(posixpath.join("/", clean(mount.container_path, "a mount's container_path")))
    if not mount.container_path or place == "/":
        raise InvalidArgument(f"a mount cannot go to {shown(mount.container_path)}")
    if volume is not None:
        return _mount(place, "bind", str(volume), _IMAGE_VOLUME)
    source = _source(absolute(mount.host_path, f"the source of the mount at {shown(place)}"))
    options = ["rbind", _propagation(mount, source), _access(mount)]
    return _mount(place, "bind", source, options) | _mappings(mount)


def _mappings(mount: api_pb2.Mount) -> Mount:
    """Return how IDs in a volume are to be seen; the runtime maps the mount."""
    if not mount.uidMappings and not mount.gidMappings:
        return {}
    if not mount.uidMappings or not mount.gidMappings:
        raise InvalidArgument(f"the mount at {shown(mount.container_path)} maps only one of users and groups")
    return {"uidMappings": oci_mappings(mount.uidMappings), "gidMappings": oci_mappings(mount.gidMappings)}


def _access(mount: api_pb2.Mount) -> str:
    if not mount.recursive_read_only:
        return "ro" if mount.readonly else "rw"
    if not mount.readonly or mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        raise InvalidArgument("a recursively read-only mount must be read-only and private")
    return "rro"


def _source(path: str) -> str:
    """Return the real path of a mount's source; a missing one is made as a directory."""
    try:
        if not os.path.exists(path):
            os.makedirs(path, 0o755, exist_ok=True)
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise invalid_argument(f"mount source {shown(path)}", error) from error


def _propagation(mount: api_pb2.Mount, source: str) -> str:
    """Return the option word; what shall pass mounts on must lie on a mount that does."""
    option = _PROPAGATION.get(mount.propagation)
    if option is None:
        raise InvalidArgument(f"mount propagation {mount.propagation} does not exist")
    if mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        peers = mount_peers(source)
        wanted = ("shared:",) if option == "rshared" else ("shared:", "master:")
        if not any(peer.startswith(wanted) for peer in peers):
            raise InvalidArgument(f"mount source {shown(source)} does not lie on a {option[1:]} mount")
    return option


def mount_peers(path: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> Sequence[str]:
    """Return the propagation fields of the mount that a real path lies on, proc_pid_mountinfo(5)."""
    best: tuple[int, Sequence[str]] = (-1, ())
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if os.path.commonpath([point, path]) == point and len(point) >= best[0]:
            best = len(point), fields[6 : fields.index("-")]
    return best[1]


def _mount(place: str, kind: str, source: str, options: Sequence[str]) -> Mount:
    return {"destination": place, "type": kind, "source": source, "options": list(options)}
