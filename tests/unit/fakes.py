"""An in-memory node: fakes of all parts that pods and containers depend on.

They share one :class:`fakeworld.World`. It records created objects, lets a test fail or block any step by
its name, and returns the remaining objects. Files below the run directory are real (tmp_path).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fakesessions import FakeConversation
from fakeworld import FakeHost, Running, World

from noderuntime.config import Config, HandlerConfig, ServerConfig
from noderuntime.core.errors import Internal, NotFound
from noderuntime.core.paths import Paths
from noderuntime.core.retries import Retries
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import Image, ImageConfig, SnapshotUsage
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.metrics.prometheus import Prometheus
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.executor.base import ExecResult, Executor, Features, RuntimeCommand, Traits
from noderuntime.node.executor.gvisor import GvisorExecutor
from noderuntime.node.executor.oci import OciExecutor
from noderuntime.node.executor.probes import Probes
from noderuntime.node.host.base import ProcessRef, UserNamespace
from noderuntime.node.monitor.base import Exit, Monitored, MonitorRequest
from noderuntime.node.network.base import Attachment
from noderuntime.node.spec.cdi.catalog import Catalog
from noderuntime.node.spec.facts import read_facts

IMAGE_ID = "sha256:" + "1" * 64
IMAGE_DIGESTS = ("docker.io/library/app@sha256:" + "2" * 64, "example.org/app@sha256:" + "2" * 64)


class FakeExecutor:
    """See noderuntime.node.executor.base.Executor."""

    def __init__(self, world: World, name: str, traits: Traits) -> None:
        self.world = world
        self.name = name
        self.traits = traits
        self.updates: list[Mapping[str, Any]] = []
        self.program = FakeConversation()
        self.execs: list[Mapping[str, Any]] = []
        self.connections: list[tuple[Path | None, int]] = []
        self.dump_seconds: list[float] = []
        """The timeouts of checkpoints."""
        self.inside: dict[str, str] = {}
        """The sandbox of each container."""

    async def probe(self) -> Features:
        runc = self.name == "runc"
        return Features("1", user_namespaces=runc, recursive_read_only_mounts=runc)

    def monitor_runtime(self, container_id: str, sandbox_id: str, *, is_root: bool) -> RuntimeCommand:
        self.inside[container_id] = sandbox_id
        return RuntimeCommand(Path("/bin/fake"), ())

    def adapt_spec(self, spec: dict[str, Any], sandbox_id: str, *, is_root: bool) -> None:
        self.world.trace.append("adapt")

    async def start(self, container_id: str, sandbox_id: str, *, is_root: bool) -> None:
        await self.world.step("start")
        self.world.runtime[container_id].started = True
        self.world.after("start", container_id)

    async def kill(
        self, container_id: str, sandbox_id: str, signo: int, *, process: ProcessRef | None = None
    ) -> bool:
        await self.world.step("kill", container_id)
        self.world.signals.append((container_id, signo))
        running = self.world.runtime.get(container_id)
        if running is None or running.process not in self.world.processes:
            return False
        if f"kill {container_id}" in self.world.fail:
            raise Internal(f"kill {container_id} fails")
        if signo == signal.SIGKILL or container_id not in self.world.stubborn:
            self.world.exit(container_id, 128 + signo)
        if self.traits.root_container and container_id == sandbox_id:
            for member in [one for one, sandbox in self.inside.items() if sandbox == sandbox_id]:
                self.world.exit(member, 137)
        await self.world.step("killed")
        return True

    async def has_state(self, container_id: str) -> bool:
        return container_id in self.world.runtime

    async def delete(self, container_id: str, sandbox_id: str) -> None:
        await self.world.step("delete", container_id)
        if container_id in self.world.runtime:
            self.world.exit(container_id, 137)
            del self.world.runtime[container_id]

    async def exec_sync(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, timeout: float | None
    ) -> ExecResult:
        return ExecResult(3, " ".join(process["args"]).encode(), str(timeout).encode())

    async def exec(
        self, container_id: str, sandbox_id: str, process: Mapping[str, Any], *, stdin: bool
    ) -> FakeConversation:
        await self.world.step("exec")
        self.execs.append(process)
        return self.program

    async def connect(self, sandbox_id: str, netns: Path | None, port: int) -> FakeConversation:
        await self.world.step("connect")
        self.connections.append((netns, port))
        return self.program

    async def update(self, container_id: str, sandbox_id: str, resources: Mapping[str, Any]) -> None:
        await self.world.step("update")
        self.updates.append(resources)

    async def checkpoint(
        self, container_id: str, sandbox_id: str, directory: Path, *, timeout: float
    ) -> None:
        self.dump_seconds.append(timeout)
        self.world.frozen.add(container_id)
        await self.world.step("checkpoint")
        (directory / "checkpoint").mkdir()
        (directory / "checkpoint/pages-1.img").write_bytes(b"memory")

    async def pids(self, container_id: str, sandbox_id: str) -> Sequence[int]:
        return []


class FakeMonitor:
    """See noderuntime.node.monitor.base.Monitor."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: dict[str, MonitorRequest] = {}
        self.conversation = FakeConversation()

    async def create(self, request: MonitorRequest) -> Monitored:
        if request.log_path is not None:
            request.log_path.touch()
        await self.world.step("create", request.name)
        assert (request.bundle / "config.json").is_file()
        self.world.cgroups.add(request.cgroup)
        self.requests[request.container_id] = request
        running = Running(self.world.spawn(), self.world.spawn())
        self.world.runtime[request.container_id] = running
        self.world.after("create", request.container_id)
        return Monitored(running.process, running.monitor)

    async def reopen_log(self, bundle: Path, log_path: Path) -> None:
        await self.world.step("reopen")

    async def attach(self, bundle: Path) -> FakeConversation:
        await self.world.step("attach to a container")
        return self.conversation

    def pid(self, bundle: Path) -> int | None:
        running = self.world.runtime.get(bundle.name)
        return running.monitor.pid if running else None

    def exit(self, container_id: str) -> Exit | None:
        if error := self.world.raises.get(f"exit {container_id}"):
            raise error
        return self.world.exits.get(container_id)

    def oom_killed(self, container_id: str) -> bool:
        return container_id in self.world.oom

    async def forget(self, container_id: str) -> None:
        await self.world.step("forget")
        self.world.exits.pop(container_id, None)


class FakeImages:
    """See noderuntime.images.base.ImageBackend."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def image(self, ref: str) -> Image:
        await self.world.step("image")
        if ref == "missing":
            raise NotFound("image missing is not on the node")
        signals = {"polite": "SIGINT", "unknown signal": "SIGFOO"}
        config = ImageConfig(
            cmd=("sh",),
            stop_signal=signals.get(ref, ""),
            volumes=("/filled", "made/for/it/", "/") if ref == "volumes" else (),
        )
        digests = () if ref == "loaded" else IMAGE_DIGESTS
        return Image(IMAGE_ID, "chain", config, ("example.org/app:1", "example.org/app:2"), digests)

    async def prepare(
        self,
        key: str,
        image: Image,
        target: Path,
        labels: Mapping[str, str],
        user: UserNamespace | None = None,
    ) -> None:
        await self.world.step("prepare")
        assert target.is_dir()
        self.world.snapshots.add(key)
        self.world.mounts.add(target)
        if image.config.volumes:
            (target / "real").mkdir()
            (target / "real/file").write_text("of the image")
            (target / "filled").symlink_to("/real")
        self.world.after("prepare")

    async def volume(self, key: str, image: Image, target: Path, sub_path: str = "") -> Path:
        await self.world.step("volume")
        assert target.is_dir()
        self.world.volumes.setdefault(key, []).append(target)
        self.world.after("volume")
        return target / sub_path

    async def release(self, key: str, target: Path) -> None:
        await self.world.step("release", key)
        self.world.volumes.pop(key, None)
        self.world.snapshots.discard(key)
        self.world.mounts.discard(target)

    async def keys(self) -> set[str]:
        await self.world.step("keys")
        return set(self.world.snapshots)

    async def usage(self, key: str) -> SnapshotUsage:
        return SnapshotUsage(0, 0)

    async def close(self) -> None:
        return None


class FakeNetwork:
    """See noderuntime.node.network.base.Network."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def configuration(self) -> bytes:
        return b"configuration"

    async def attach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, network: bytes
    ) -> Attachment:
        await self.world.step("attach")
        assert network == await self.configuration()
        assert Path(netns) in self.world.pins
        self.world.attached.add(sandbox_id)
        self.world.after("attach")
        return Attachment(("10.0.0.2", "fd00::2"), b"{}")

    async def detach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, result: bytes
    ) -> None:
        await self.world.step("detach", sandbox_id)
        self.world.deleted[sandbox_id] = result
        self.world.attached.discard(sandbox_id)

    async def ready(self) -> tuple[bool, str]:
        return True, ""

    async def collect_garbage(self, attachments: Callable[[], Mapping[str, bytes]]) -> None:
        await self.world.step("collect garbage")
        self.world.attached &= set(attachments())


class FakeStats:
    """See noderuntime.lifecycle.stats.collect.StatsCollector. All usage is empty."""

    async def containers(self, pods: Sequence[Any]) -> list[api_pb2.ContainerStats]:
        return []

    async def written(self, container_ids: Sequence[str]) -> dict[str, Any]:
        return {}


class Pauses:
    """The pauses between retries, which end when a test wants that."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._end = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await self._end.wait()

    def end(self) -> None:
        """End the pauses under way."""
        self._end.set()
        self._end = asyncio.Event()


class Node:
    """A fake node with a daemon that can be restarted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = World()
        self.boot = "boot-1"
        self.pauses = Pauses()
        self.parts = self._build()

    def _build(self) -> Parts:
        world, run = self.world, self.directory / "run"
        handlers: dict[str, Literal["runc", "gvisor"]] = {"runc": "runc", "gvisor": "gvisor"}
        executors: dict[str, Executor] = {
            "runc": FakeExecutor(world, "runc", OciExecutor.traits),
            "gvisor": FakeExecutor(world, "gvisor", GvisorExecutor.traits),
        }
        return Parts(
            config=Config(
                server=ServerConfig(run_dir=run, state_dir=self.directory / "state"),
                handlers={
                    name: HandlerConfig(type=kind, path=Path("/bin/fake")) for name, kind in handlers.items()
                },
            ),
            paths=Paths(run, netns_dir=run / "netns"),
            ledger=Ledger(self.directory / "state"),
            host=FakeHost(world),  # type: ignore[arg-type] # cannot run or launch programs
            executors=executors,
            probes=Probes(executors, user_namespaces=True),
            facts=read_facts(seccomp_profile=None),
            monitor=FakeMonitor(world),
            images=FakeImages(world),
            network=FakeNetwork(world),
            cdi=Catalog([self.directory / "cdi"]),
            stats=FakeStats(),  # type: ignore[arg-type]
            metrics=Prometheus(),
            retries=Retries(self.pauses.sleep),
        )

    async def restart(self) -> Parts:
        """Start the daemon again after a kill, before its recovery."""
        await self.parts.ledger.close()
        self.parts = self._build()
        return self.parts

    def left(self) -> dict[str, object]:
        """Return the objects on the node; empty if there are none."""
        left = self.world.left()
        volumes = self.directory / "state/volumes"
        for place in (self.parts.paths.sandboxes, self.parts.paths.containers, volumes):
            names = [entry.name for entry in place.iterdir()] if place.is_dir() else []
            if names:
                left[place.name] = names
        if len(self.parts.ledger.sandboxes) or len(self.parts.ledger.containers):
            left["ledger"] = [*self.parts.ledger.sandboxes, *self.parts.ledger.containers]
        return left


def pod_config(name: str = "web", **fields: Any) -> api_pb2.PodSandboxConfig:
    """Return a pod as the kubelet requests it: own network namespace, no shared PID namespace."""
    config = api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name=name, namespace="default", uid=f"uid-{name}"), **fields
    )
    config.linux.cgroup_parent = f"/kubepods/pod-{name}"
    config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
    return config


def container_config(name: str = "app", image: str = "app", **fields: Any) -> api_pb2.ContainerConfig:
    """Return the config of an ordinary container."""
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name=name),
        image=api_pb2.ImageSpec(image=image, user_specified_image="app:latest"),
        **fields,
    )
