"""The inputs of a spec besides CRI's messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import UserNamespace
from noderuntime.node.host.cgroup_names import CgroupDriver

NamespaceType = Literal["network", "ipc", "uts", "pid"]


class ImageDefaults(Protocol):
    """The part of an image's configuration that has defaults for containers."""

    @property
    def env(self) -> Sequence[str]:
        """Environment variables as ``NAME=value``."""

    @property
    def entrypoint(self) -> Sequence[str]:
        """The program to run, unless the pod sets a command."""

    @property
    def cmd(self) -> Sequence[str]:
        """Arguments of the entrypoint, unless the pod sets a command or arguments."""

    @property
    def working_dir(self) -> str:
        """The working directory. Empty: the root."""

    @property
    def user(self) -> str:
        """``user[:group]``, names or numbers. Empty: root."""


@dataclass(frozen=True, slots=True)
class Pod:
    """The sandbox of a container."""

    id: str
    config: api_pb2.PodSandboxConfig
    cgroup: str
    """Path of the pod's cgroup, as returned by host.cgroup_names.pod_cgroup."""
    driver: CgroupDriver
    namespaces: Mapping[NamespaceType, str] = field(default_factory=dict)
    """Paths of the pod's namespaces. Without an entry, network, ipc and uts are the node's, and pid is
    a new namespace unless CRI's namespace options select NODE."""
    shm: Path | None = None
    """The pod's tmpfs for /dev/shm. None: the node's /dev/shm."""
    resolv_conf: Path | None = None
    hostname: Path | None = None
    """The file to mount at /etc/hostname."""
    user: UserNamespace | None = None
    """The pod's user namespace. None: the node's."""
    own_kernel: bool = False
    """Whether the pod has its own kernel (gVisor), to which some settings of the node do not apply."""


@dataclass(frozen=True, slots=True)
class ContainerInput:
    """The container to build a spec for."""

    id: str
    config: api_pb2.ContainerConfig
    image: ImageDefaults
    rootfs: Path
    """Mount point of the root filesystem on the node. Users and groups are read from it."""
    target_pid: int | None = None
    """PID of a process of the container that namespace mode TARGET selects."""
    volumes: Mapping[int, Path] = field(default_factory=dict)
    """Mount points of image volumes on the node, by the index of the mount in ``config.mounts``."""
