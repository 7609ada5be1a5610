"""The paths of sandboxes and containers below the run directory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_NETNS_PREFIX = "noderuntime-"


@dataclass(frozen=True, slots=True)
class SandboxPaths:
    """Files of one sandbox."""

    dir: Path
    netns: Path
    """Pin of the network namespace, in the directory that ``ip netns`` uses."""

    @property
    def ipc(self) -> Path:
        """Pin of the IPC namespace."""
        return self.dir / "ipc"

    @property
    def uts(self) -> Path:
        """Pin of the UTS namespace."""
        return self.dir / "uts"

    @property
    def user(self) -> Path:
        """Pin of the user namespace."""
        return self.dir / "user"

    @property
    def pins(self) -> tuple[Path, ...]:
        """All pins that a sandbox can have."""
        return self.netns, self.ipc, self.uts, self.user

    @property
    def resolv_conf(self) -> Path:
        """The containers' ``/etc/resolv.conf``."""
        return self.dir / "resolv.conf"

    @property
    def hostname(self) -> Path:
        """The containers' ``/etc/hostname``."""
        return self.dir / "hostname"

    @property
    def shm(self) -> Path:
        """The containers' ``/dev/shm``: a tmpfs."""
        return self.dir / "shm"


@dataclass(frozen=True, slots=True)
class ContainerPaths:
    """Files of one container (or of a sandbox's root container, under the sandbox's ID)."""

    bundle: Path

    @property
    def rootfs(self) -> Path:
        """Mount point of the root filesystem."""
        return self.bundle / "rootfs"

    @property
    def volumes(self) -> Path:
        """The directory of the mount points of the container's image volumes."""
        return self.bundle / "volumes"

    @property
    def spec(self) -> Path:
        """The OCI runtime spec."""
        return self.bundle / "config.json"


@dataclass(frozen=True, slots=True)
class Paths:
    """The run directory's layout."""

    run_dir: Path
    netns_dir: Path = Path("/run/netns")

    @property
    def sandboxes(self) -> Path:
        """The directory with a directory for each sandbox."""
        return self.run_dir / "sandboxes"

    @property
    def containers(self) -> Path:
        """The directory with a bundle for each container and root container."""
        return self.run_dir / "containers"

    def sandbox(self, sandbox_id: str) -> SandboxPaths:
        """Return the paths of a sandbox."""
        return SandboxPaths(self.sandboxes / sandbox_id, self.netns_dir / f"{_NETNS_PREFIX}{sandbox_id[:32]}")

    def container(self, container_id: str) -> ContainerPaths:
        """Return the paths of a container."""
        return ContainerPaths(self.containers / container_id)
