"""Where everything of a sandbox and a container lies under the run directory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_NETNS_PREFIX = "noderuntime-"


@dataclass(frozen=True, slots=True)
class SandboxPaths:
    """Files of one sandbox."""

    dir: Path
    netns: Path
    """Pin of the network namespace; in the directory that ``ip netns`` looks at."""

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
        """All pins that there may be."""
        return self.netns, self.ipc, self.uts, self.user

    @property
    def resolv_conf(self) -> Path:
        """What containers see as ``/etc/resolv.conf``."""
        return self.dir / "resolv.conf"

    @property
    def hostname(self) -> Path:
        """What containers see as ``/etc/hostname``."""
        return self.dir / "hostname"

    @property
    def shm(self) -> Path:
        """What containers see as ``/dev/shm``: a tmpfs."""
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
        """Holds the mount points of images that the container has as volumes."""
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
        """Holds a directory for each sandbox."""
        return self.run_dir / "sandboxes"

    @property
    def containers(self) -> Path:
        """Holds a bundle for each container and root container."""
        return self.run_dir / "containers"

    def sandbox(self, sandbox_id: str) -> SandboxPaths:
        """Return the places of a sandbox."""
        return SandboxPaths(self.sandboxes / sandbox_id, self.netns_dir / f"{_NETNS_PREFIX}{sandbox_id[:32]}")

    def container(self, container_id: str) -> ContainerPaths:
        """Return the places of a container."""
        return ContainerPaths(self.containers / container_id)
