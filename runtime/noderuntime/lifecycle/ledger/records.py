"""The ledger's records of sandboxes and containers.

States are derived from the times of events, never stored:

sandbox     created ──► ready ──► stopped ──► (removed: the record goes)
            (CREATING)  (SANDBOX_READY)  (SANDBOX_NOTREADY)
container   created ──► running ──► exited ──► (removed: the record goes)
            CREATED     RUNNING     EXITED

Times are nanoseconds since the epoch; 0 means that the event has not happened.
A record is written before the object is created (intent before side effect).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import ProcessRef


@dataclass(slots=True)
class Sandbox:
    """One pod sandbox of this runtime."""

    id: str
    handler: str
    config: api_pb2.PodSandboxConfig
    created_at: int
    ready_at: int = 0
    stopped_at: int = 0
    netns: str = ""
    """Path of the pinned network namespace; empty with the host's network."""
    ips: tuple[str, ...] = ()
    """Pod addresses, primary first."""
    cni_result: bytes = b""
    """The network's configuration; after ADD with the plugins' result. DEL needs it."""
    root: ProcessRef | None = None
    """The sandbox's own process (pause, or gVisor's sentry); None if it has none."""
    monitor: ProcessRef | None = None
    """The monitor of that process."""
    released_at: int = 0
    """When all its resources were released; until then StopPodSandbox has work to do."""

    @property
    def visible(self) -> bool:
        """Return whether callers can see it: it was ready once, or its undo is incomplete."""
        return bool(self.ready_at or self.stopped_at)

    @property
    def ready(self) -> bool:
        """Return whether containers can be created in it."""
        return bool(self.ready_at and not self.stopped_at)


@dataclass(slots=True)
class Container:
    """One container of a sandbox of this runtime."""

    id: str
    sandbox_id: str
    config: api_pb2.ContainerConfig
    created_at: int
    image_id: str = ""
    """The image's ID: the digest of its config (CRI Image.id, ContainerStatus.image_id)."""
    image_ref: str = ""
    """``repository@sha256:…`` as it was pulled; the ID of an image that was loaded (CRI image_ref)."""
    image_name: str = ""
    """A tag or digest of the image, for display."""
    volume_images: tuple[str, ...] = ()
    """IDs of its image volumes, in the order of its mounts."""
    log_path: str = ""
    """Absolute path of the log file; empty if the pod requests no log."""
    process: ProcessRef | None = None
    monitor: ProcessRef | None = None
    prepared_at: int = 0
    """When CreateContainer finished; before that the record is only an intent."""
    starting: bool = False
    """Whether a start is in progress: the runtime was called and its result is not recorded yet."""
    started_at: int = 0
    stopping_at: int = 0
    """When a stop was first requested: an intent, no signal was sent yet. Later starts are refused."""
    killed_at: int = 0
    """When SIGKILL was sent: without it, exit code 137 means an OOM kill by the kernel."""
    checkpointing_at: int = 0
    """When the checkpoint in progress began: until it ends, the container can be frozen."""
    finished_at: int = 0
    released_at: int = 0
    """When the runtime's state of the ended container was deleted."""
    exit_code: int = 0
    oom_killed: bool = False
    pod_oom_kills: int = 0
    """The pod's count of OOM kills when the container was created."""
    start_error: str = ""
    """Why it never ran, or why its start will fail (reason ``StartError``, exit code 128)."""
    lost: bool = False
    """Whether its exit code was lost (reason ``Unknown``); the code is then reported as 255."""
    stop_signal: int = 15
    """Number of the signal that asks it to stop."""
    user: api_pb2.LinuxContainerUser = field(default_factory=api_pb2.LinuxContainerUser)
    """User and groups of its first process."""
    resources: api_pb2.LinuxContainerResources = field(default_factory=api_pb2.LinuxContainerResources)
    """The limits in force, after the last UpdateContainerResources."""
    updating: api_pb2.LinuxContainerResources = field(default_factory=api_pb2.LinuxContainerResources)
    """The limits that an UpdateContainerResources in progress sets; empty otherwise."""

    def __post_init__(self) -> None:
        """Fill in fields that a row lacks if an older daemon wrote it, after a rollback of the node."""
        self.image_ref = self.image_ref or self.image_id

    @property
    def visible(self) -> bool:
        """Return whether callers can see it: its creation finished, or its undo is incomplete."""
        return bool(self.prepared_at or self.finished_at)

    @property
    def live(self) -> bool:
        """Return whether it is created or running."""
        return bool(self.prepared_at and not self.finished_at)

    @property
    def unstartable(self) -> bool:
        """Return whether the runtime failed to create it, which its start reports. It has no process."""
        return bool(self.live and self.start_error)

    @property
    def running(self) -> bool:
        """Return whether it was started and has not ended."""
        return bool(self.started_at and not self.finished_at)
