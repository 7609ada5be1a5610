"""What a spec is built from, besides CRI's own messages."""

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
    """The part of an image's config that a container takes its defaults from."""

    @property
    def env(self) -> Sequence[str]:
        """``NAME=value`` each."""

    @property
    def entrypoint(self) -> Sequence[str]:
        """What runs unless the pod gives a command."""

    @property
    def cmd(self) -> Sequence[str]:
        """Arguments to the entrypoint unless the pod gives any."""

    @property
    def working_dir(self) -> str:
        """Directory to start in; empty: the root."""

    @property
    def user(self) -> str:
        """``user[:group]``, names or numbers; empty: root."""


@dataclass(frozen=True, slots=True)
class Pod:
    """The sandbox that a container is made in."""

    id: str
    config: api_pb2.PodSandboxConfig
    cgroup: str
    """Path of the pod's cgroup, from host.cgroup_names.pod_cgroup."""
    driver: CgroupDriver
    namespaces: Mapping[NamespaceType, str] = field(default_factory=dict)
    """Paths of the pod's namespaces. Without an entry: network, ipc and uts are the node's,
    and pid is a new one, unless CRI's namespace options say NODE."""
    shm: Path | None = None
    """The pod's tmpfs for /dev/shm; None: the node's."""
    resolv_conf: Path | None = None
    hostname: Path | None = None
    """File for /etc/hostname."""
    user: UserNamespace | None = None
    """The pod's user namespace; None: the node's."""
    handler: Literal["runc", "gvisor", "oci"] = "runc"
    """Type of the pod's handler; gVisor has its own kernel and wants fewer of the host's things."""


@dataclass(frozen=True, slots=True)
class ContainerInput:
    """One container to build a spec for."""

    id: str
    config: api_pb2.ContainerConfig
    image: ImageDefaults
    rootfs: Path
    """Where the root filesystem is mounted on the node; it is read for users and groups."""
    target_pid: int | None = None
    """A process of the container that namespace mode TARGET names."""
    volumes: Mapping[int, Path] = field(default_factory=dict)
    """Where images that it wants as volumes are mounted, by the mount's number in its config."""
