"""What the ledger keeps of a sandbox and a container.

States are derived from what happened, never stored:

sandbox     created ──► ready ──► stopped ──► (removed: the record goes)
            (CREATING)  (SANDBOX_READY)  (SANDBOX_NOTREADY)
container   created ──► running ──► exited ──► (removed: the record goes)
            CREATED     RUNNING     EXITED

Times are nanoseconds since the epoch, 0 when it has not happened.
A record is written before the thing it speaks of is made (intent before side effect).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import ProcessRef


@dataclass(slots=True)
class Sandbox:
    """One pod sandbox that runs here."""

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
    """The network's configuration, and the result of its plugins once ADD has finished; needed at DEL."""
    root: ProcessRef | None = None
    """The sandbox's own process (pause, or gVisor's sentry), where it has one."""
    monitor: ProcessRef | None = None
    """The monitor of that process."""
    released_at: int = 0
    """When everything of it was given back; until then StopPodSandbox has work to do."""

    @property
    def visible(self) -> bool:
        """Tell whether callers may see it: it was ready once, or its undoing is not complete."""
        return bool(self.ready_at or self.stopped_at)

    @property
    def ready(self) -> bool:
        """Tell whether containers can live in it."""
        return bool(self.ready_at and not self.stopped_at)


@dataclass(slots=True)
class Container:
    """One container of a sandbox that runs here."""

    id: str
    sandbox_id: str
    config: api_pb2.ContainerConfig
    created_at: int
    image_id: str = ""
    """The image's ID: the digest of its config (CRI Image.id, ContainerStatus.image_id)."""
    image_ref: str = ""
    """``repository@sha256:…`` as it was pulled; the ID of an image that was loaded (CRI image_ref)."""
    image_name: str = ""
    """A tag or digest of the image, for people."""
    volume_images: tuple[str, ...] = ()
    """IDs of the images that it has as volumes, in the order of its mounts."""
    log_path: str = ""
    """Absolute path of the log file; empty when the pod wants none."""
    process: ProcessRef | None = None
    monitor: ProcessRef | None = None
    prepared_at: int = 0
    """When CreateContainer finished; before that the record is only an intent."""
    starting: bool = False
    """Whether the runtime was asked to start it and nobody knows yet what came of it."""
    started_at: int = 0
    stopping_at: int = 0
    """When a stop was first requested: an intent, not a signal that was sent. It is not started any more."""
    killed_at: int = 0
    """When SIGKILL was sent: only then is exit code 137 ours and not the kernel's OOM kill."""
    checkpointing_at: int = 0
    """When the checkpoint under way began: until it is over, the container can be frozen."""
    finished_at: int = 0
    released_at: int = 0
    """When the runtime's own state of the ended container was deleted."""
    exit_code: int = 0
    oom_killed: bool = False
    pod_oom_kills: int = 0
    """How many processes the kernel had killed in the pod for want of memory when it was made."""
    start_error: str = ""
    """Why it never ran (reason ``StartError``); its exit code is then 128."""
    lost: bool = False
    """Whether it ended without anybody there to see how (reason ``Unknown``); its exit code is then 255."""
    stop_signal: int = 15
    """Number of the signal that asks it to stop."""
    user: api_pb2.LinuxContainerUser = field(default_factory=api_pb2.LinuxContainerUser)
    """Who its first process is."""
    resources: api_pb2.LinuxContainerResources = field(default_factory=api_pb2.LinuxContainerResources)
    """The limits in force, after the last UpdateContainerResources."""
    updating: api_pb2.LinuxContainerResources = field(default_factory=api_pb2.LinuxContainerResources)
    """The limits that an UpdateContainerResources in progress sets; empty otherwise."""

    def __post_init__(self) -> None:
        """Fill what the row of an older daemon, to which the node returned for a while, does not have."""
        self.image_ref = self.image_ref or self.image_id

    @property
    def visible(self) -> bool:
        """Tell whether callers may see it: it was created once, or its undoing is not complete."""
        return bool(self.prepared_at or self.finished_at)

    @property
    def live(self) -> bool:
        """Tell whether the runtime still has it: created or running."""
        return bool(self.prepared_at and not self.finished_at)

    @property
    def running(self) -> bool:
        """Tell whether it was started and has not ended."""
        return bool(self.started_at and not self.finished_at)
