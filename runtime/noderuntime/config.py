"""The daemon's configuration: ``/etc/noderuntime/config.toml`` and its drop-ins as one model.

Drop-ins (``conf.d/*.toml``) are merged in the order of their names. Tables are merged
key by key; all other values are replaced. Unknown keys are errors.
"""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    IPvAnyAddress,
    StringConstraints,
    ValidationError,
    model_validator,
)

from noderuntime.core.errors import InvalidArgument, first_problem, invalid_argument

CONFIG_FILE = Path("/etc/noderuntime/config.toml")
SOCKET = Path("/run/noderuntime/noderuntime.sock")

HandlerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


def _pinned(path: Path) -> Path:
    return path.resolve() if path.is_absolute() else path


PinnedPath = Annotated[Path, AfterValidator(_pinned)]
"""Symlinks are resolved at load time: a running daemon must not mix bundles when ``current`` moves."""


def _split(address: str) -> tuple[str, int]:
    """Return host and port of ``IP:PORT``. ValueError if it is malformed."""
    host, _, port = address.rpartition(":")
    return str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port)


def _checked_address(address: str) -> str:
    try:
        _, port = _split(address)
    except ValueError:
        port = 0
    if not 0 < port < 1 << 16:
        raise ValueError(f"{address!r} is not an IP address and port (example: 127.0.0.1:9464)")
    return address


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ServerConfig(_Table):
    """The daemon's socket and directories."""

    socket: Path = SOCKET
    run_dir: Path = Path("/run/noderuntime")
    """Must be on a tmpfs, as ``/run`` is: files in it are read and written without a thread."""
    state_dir: Path = Path("/var/lib/noderuntime")
    cgroup_driver: Literal["systemd", "cgroupfs"] | None = None
    """Needed only if the upstream does not report it. Must match the kubelet's cgroupDriver."""


class UpstreamConfig(_Table):
    """The CRI socket of the node's previous runtime. Calls for its pods are forwarded to it unchanged."""

    socket: Path


class ImagesConfig(_Table):
    """The source of root filesystems: the node's containerd or the native image store."""

    backend: Literal["containerd", "native"] = "containerd"
    containerd_socket: Path = Path("/run/containerd/containerd.sock")
    namespace: str = "k8s.io"
    snapshotter: str = "overlayfs"
    certs_dirs: tuple[Path, ...] = (Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))
    """Native only: directories with ``<registry>/hosts.toml``, which names mirrors. Read for every pull."""
    credentials: Path | None = None
    """Native only: registry credentials in the format of Docker's ``config.json``. Read for every pull."""
    http_redirects: bool = True
    """Native only: whether registries with TLS can redirect to plain HTTP for content with a known digest."""
    search: tuple[str, ...] = ("docker.io",)
    """Native only: registries to search for an image name that has no registry."""
    pinned: tuple[str, ...] = ()
    """Native only: images that the kubelet must not garbage-collect."""
    max_image_size: ByteSize = Field(default=ByteSize(256 << 30), gt=0)
    """Native only: uncompressed bytes of one image's layers. Stops decompression bombs."""
    min_free_disk: ByteSize = ByteSize(256 << 20)
    """Bytes that pulls (native only) and volumes of images leave free on their disk. 0: they can fill it."""


class NetworkConfig(_Table):
    """The pod network: directories of the node's CNI configuration and plugins, and defaults of pods."""

    conf_dir: Path = Path("/etc/cni/net.d")
    plugin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    enable_unprivileged_ports: bool = True
    """Processes of every user can listen on ports below 1024 in pods with their own network."""
    enable_unprivileged_icmp: bool = True
    """Processes of every group can send ICMP echo requests (ping) in pods with their own network, except in
    pods with a user namespace.
    """


class StreamingConfig(_Table):
    """The streaming server, which the kubelet or crictl connects to for exec, attach and port-forward."""

    address: IPvAnyAddress = IPv4Address("127.0.0.1")
    """An address of the node. Loopback suffices for the kubelet, which proxies for remote clients."""
    port: int = Field(default=0, ge=0, lt=1 << 16)
    """0 selects a free port. Every URL contains the port."""
    tls_cert: Path | None = None
    """PEM file. Set with ``tls_key``. The kubelet must trust the certificate for the address.

    Both files are read again when they change.
    """
    tls_key: Path | None = None
    token_ttl: float = Field(default=60, gt=0, le=3600)
    """Seconds within which a client must connect."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be set together")
        return self


class ToolsConfig(_Table):
    """Programs and files of the bundle. A program without a directory is searched in PATH."""

    conmon: PinnedPath = Path("conmon")
    busybox: PinnedPath = Path("busybox")
    """A statically linked busybox. Its shell holds the stdio of gVisor's containers."""
    pause_rootfs: PinnedPath = Path("/opt/noderuntime/current/share/pause")
    """Root filesystem of sandboxes' root containers: an init named ``pause``, and ``busybox``, which
    connects port-forward to pods in gVisor. runc refuses a path that contains a symlink.
    """
    seccomp_profile: PinnedPath | None = None
    """A profile for RuntimeDefault, in the JSON format of container engines, instead of the built-in one."""


class DevicesConfig(_Table):
    """The Container Device Interface (CDI)."""

    cdi_dirs: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    """Directories of CDI files. Later directories take precedence."""


class RunscConfig(_Table):
    """The flags of runsc that a node can choose; the others are fixed, because stats and limits need them.

    A sandbox keeps the flags with which it was created.
    """

    platform: Literal["systrap", "kvm"] = "systrap"
    """``kvm`` intercepts system calls faster on bare metal. It needs ``/dev/kvm``."""
    host_uds: Literal["none", "open"] = "none"
    """``open`` lets pods connect to unix sockets in their volumes, for example to a daemon of the node."""
    directfs: bool = True
    """False: only the gofer opens files, so that the sandbox has fewer privileges; files are slower."""
    net_raw: bool = False
    """Leave CAP_NET_RAW to containers that have it, so that ping works. They can then forge packets."""
    core_tags: bool = False
    """Never run two sandboxes on the hyperthreads of one core, against side channels. Needs Linux 5.14."""


_RUN_BY_RUNSC = ("gvisor",)


class HandlerConfig(_Table):
    """An OCI runtime that pods select by the handler of their RuntimeClass."""

    type: Literal["runc", "gvisor", "oci"]
    """``oci`` is any other runtime with runc's command line, such as crun."""
    path: PinnedPath
    runsc: RunscConfig = RunscConfig()
    """gVisor only."""

    @model_validator(mode="after")
    def _runsc_is_gvisors(self) -> Self:
        if self.type not in _RUN_BY_RUNSC and self.runsc != RunscConfig():
            raise ValueError(f"a handler of type {self.type} has no flags of runsc: only gvisor has them")
        return self


class LogConfig(_Table):
    """The daemon's log."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsConfig(_Table):
    """The endpoint of the daemon's Prometheus metrics. Without an address, metrics are not served."""

    address: Annotated[str, AfterValidator(_checked_address)] | None = None
    """IP address and port: ``127.0.0.1:9464``, ``[::1]:9464``. There is no authentication."""

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """The address as (host, port), or None if it is not set."""
        return None if self.address is None else _split(self.address)


class TracingConfig(_Table):
    """OpenTelemetry spans of CRI calls. Without an endpoint, nothing of it is even imported."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+:[0-9]{1,5}$")] | None = None
    """OTLP/gRPC collector: ``http://127.0.0.1:4317``. Needs the packages of ``noderuntime[tracing]``."""


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
    tracing: TracingConfig = TracingConfig()
    handlers: dict[HandlerName, HandlerConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_image_store(self) -> Config:
        if self.upstream is not None and self.images.backend == "native":
            raise ValueError(
                "images.backend native needs a node without an upstream, which manages the images"
            )
        return self


def load(path: Path = CONFIG_FILE, drop_ins: Path | None = None) -> Config:
    """Return the configuration of the file and its drop-ins, by default those in ``conf.d`` beside it.

    Raises InvalidArgument with one line that names the file or the key.
    """
    merged: dict[str, Any] = {}
    for part in (path, *sorted((drop_ins or path.parent / "conf.d").glob("*.toml"))):
        try:
            merged = _merge(merged, tomllib.loads(part.read_text(encoding="utf-8")))
        except OSError as error:
            raise invalid_argument(f"configuration {part}", error) from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidArgument(f"configuration {part}: {error}") from error
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise InvalidArgument(f"configuration {path}: {first_problem(error)}") from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of ``over`` merged in, table by table."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
