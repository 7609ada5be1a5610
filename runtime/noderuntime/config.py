"""The daemon's configuration: ``/etc/noderuntime/config.toml`` and its drop-ins as one model.

Drop-ins (``conf.d/*.toml``) are merged in the order of their names; tables merge
key by key, everything else is replaced. Unknown keys are errors.
"""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    StringConstraints,
    ValidationError,
    model_validator,
)

from noderuntime.core.errors import InvalidArgument

CONFIG_FILE = Path("/etc/noderuntime/config.toml")
SOCKET = Path("/run/noderuntime/noderuntime.sock")

HandlerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


def _pinned(path: Path) -> Path:
    return path.resolve() if path.is_absolute() else path


PinnedPath = Annotated[Path, AfterValidator(_pinned)]
"""Links are followed once: a daemon that runs on while ``current`` moves must not mix two bundles."""


def _split(address: str) -> tuple[str, int]:
    """Take ``IP:PORT`` apart; ValueError for anything else."""
    host, _, port = address.rpartition(":")
    return str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port)


def _checked_address(address: str) -> str:
    try:
        _, port = _split(address)
    except ValueError:
        port = 0
    if not 0 < port < 1 << 16:
        raise ValueError(f"{address!r} is not an IP address and a port, as in 127.0.0.1:9464")
    return address


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ServerConfig(_Table):
    """Where the daemon listens and keeps its files."""

    socket: Path = SOCKET
    run_dir: Path = Path("/run/noderuntime")
    state_dir: Path = Path("/var/lib/noderuntime")
    cgroup_driver: Literal["systemd", "cgroupfs"] | None = None
    """Only for a node whose upstream cannot tell it; it must be the kubelet's."""


class UpstreamConfig(_Table):
    """The CRI socket that the node already had; calls for its pods go there as they came."""

    socket: Path


class ImagesConfig(_Table):
    """Where root filesystems come from: the node's containerd, or a store of our own."""

    backend: Literal["containerd", "native"] = "containerd"
    containerd_socket: Path = Path("/run/containerd/containerd.sock")
    namespace: str = "k8s.io"
    snapshotter: str = "overlayfs"
    certs_dirs: tuple[Path, ...] = (Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))
    """Native: whom to ask for a registry's images, ``<registry>/hosts.toml`` in each; read for every pull."""
    credentials: Path | None = None
    """Native: passwords of registries in the form of Docker's ``config.json``; read for every pull."""
    search: tuple[str, ...] = ("docker.io",)
    """Native: the registries that a name without one may mean."""
    pinned: tuple[str, ...] = ()
    """Native: images that the kubelet should not remove to make room."""


class NetworkConfig(_Table):
    """CNI: the node's own configuration and plugins."""

    conf_dir: Path = Path("/etc/cni/net.d")
    plugin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))


class StreamingConfig(_Table):
    """Where the kubelet, or crictl, collects exec, attach and port-forward."""

    address: IPvAnyAddress = IPv4Address("127.0.0.1")
    """Of the node itself: clients come from other nodes only where no kubelet is between."""
    port: int = Field(default=0, ge=0, lt=1 << 16)
    """0 takes any that is free; it is part of every URL."""
    tls_cert: Path | None = None
    """PEM files; both or none. The kubelet has to trust the certificate for the address."""
    tls_key: Path | None = None
    token_ttl: float = Field(default=60, gt=0, le=3600)
    """Seconds that a client has to come."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self


class ToolsConfig(_Table):
    """Programs and files of the bundle."""

    conmon: PinnedPath = Path("conmon")
    busybox: PinnedPath = Path("busybox")
    """A static one: its shell holds the stdio of gVisor's containers."""
    pause_rootfs: PinnedPath = Path("/opt/noderuntime/current/share/pause")
    """Root of sandboxes' own containers: an init as ``pause``, and ``busybox``, which connects into gVisor.

    runc refuses one behind a link.
    """
    seccomp_profile: PinnedPath | None = None


class DevicesConfig(_Table):
    """Devices of third parties."""

    cdi_dirs: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    """Where their CDI files are; later ones come before earlier ones."""


class HandlerConfig(_Table):
    """One OCI runtime that pods may choose by name."""

    type: Literal["runc", "gvisor", "oci"]
    """``oci`` is any other runtime with runc's command line, such as crun."""
    path: PinnedPath


class LogConfig(_Table):
    """The daemon's own log."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsConfig(_Table):
    """Where Prometheus finds the daemon's metrics; nowhere unless it is said."""

    address: Annotated[str, AfterValidator(_checked_address)] | None = None
    """IP address and port: ``127.0.0.1:9464``, ``[::1]:9464``. Whoever reaches it may read."""

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """The address, taken apart."""
        return None if self.address is None else _split(self.address)


class Config(_Table):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    upstream: UpstreamConfig | None = None
    images: ImagesConfig = ImagesConfig()
    network: NetworkConfig = NetworkConfig()
    streaming: StreamingConfig = StreamingConfig()
    tools: ToolsConfig = ToolsConfig()
    devices: DevicesConfig = DevicesConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()
    handlers: dict[HandlerName, HandlerConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_image_store(self) -> Config:
        if self.upstream is not None and self.images.backend == "native":
            raise ValueError("images.backend native is for nodes without an upstream, which keeps the images")
        return self


def load(path: Path = CONFIG_FILE) -> Config:
    """Read the file and its drop-ins.

    Raises InvalidArgument with one line that names the file or the key.
    """
    merged: dict[str, Any] = {}
    for part in (path, *sorted((path.parent / "conf.d").glob("*.toml"))):
        try:
            merged = _merge(merged, tomllib.loads(part.read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidArgument(f"configuration {part}: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidArgument(f"configuration {part}: {error}") from error
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidArgument(f"configuration {path}: {where}: {first['msg']}") from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return base with over laid on top, table by table."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
