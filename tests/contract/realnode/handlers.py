"""A handler and a monitor without a daemon: a sandbox whose parts are created and removed directly."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noderuntime.core.ids import new_id
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import ImageConfig
from noderuntime.node.executor.base import Executor
from noderuntime.node.executor.gvisor import GvisorExecutor
from noderuntime.node.executor.oci import OciExecutor
from noderuntime.node.executor.runc import RuncExecutor
from noderuntime.node.host.cgroup_names import monitor_cgroup
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.monitor.base import Exit, Monitored, MonitorRequest
from noderuntime.node.monitor.conmon import ConmonMonitor
from noderuntime.node.spec.builder import container_spec, exec_process, root_spec
from noderuntime.node.spec.facts import read_facts
from noderuntime.node.spec.inputs import ContainerInput, Pod
from realnode.crun import crun
from realnode.tools import tool

_APPLETS = ("sh", "sleep", "cat", "echo", "uname", "id", "tail", "stty", "tr", "head", "kill")


def make_executor(handler: str, host: LinuxHost, run: Path, binary: Path | None = None) -> Executor:
    """Return a handler of a type with the real tool, or with another binary."""
    if handler == "gvisor":
        return GvisorExecutor(
            handler, host, binary or tool("runsc"), run, tool("busybox"), systemd_cgroup=False
        )
    if handler == "crun":
        return OciExecutor(handler, host, binary or crun(run), run, systemd_cgroup=False)
    return RuncExecutor(handler, host, binary or tool("runc"), run, systemd_cgroup=False)


@dataclass
class Bench:
    """One sandbox and its containers on the real host."""

    handler: str
    run: Path
    host: LinuxHost = field(default_factory=LinuxHost)
    sandbox: str = field(default_factory=new_id)
    made: dict[str, Monitored] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.exits, persist = self.run / "exits", self.run / "persist"
        for directory in (self.exits, persist, self.run / "logs"):
            directory.mkdir(parents=True)
        self.executor = make_executor(self.handler, self.host, self.run)
        self.monitor = ConmonMonitor(self.host, tool("conmon"), self.exits, persist)
        self.facts = read_facts(seccomp_profile=None)
        self.cgroup = f"/noderuntime-bench-{uuid.uuid4().hex[:8]}"
        self.netns = Path("/run/netns") / self.cgroup.strip("/")

    def log(self, container: str) -> list[str]:
        """Return the lines of a container's log without time and tags."""
        return [line.split(" ", 3)[3] for line in self.log_file(container).read_text().splitlines()]

    def log_file(self, container: str) -> Path:
        """Return the path of a container's log."""
        return self.run / "logs" / container

    async def open(self) -> None:
        """Create the sandbox."""
        await self.host.pin_namespaces({"net": self.netns})
        if self.executor.traits.root_container:
            rootfs = self._bundle(self.sandbox) / "rootfs"
            shutil.copy(tool("catatonit"), rootfs / "pause")
            shutil.copy(tool("busybox"), rootfs / "busybox")
            spec = root_spec(self._pod(), rootfs, ["/pause", "-P"], self.facts)
            await self._create(self.sandbox, spec, is_root=True)
            await self.executor.start(self.sandbox, self.sandbox, is_root=True)

    async def close(self) -> list[str]:
        """Remove everything and return what should already have been removed."""
        for container in reversed(tuple(self.made)):
            await self.executor.kill(container, self.sandbox, signal.SIGKILL)
            await self.ended(container)
            await self.executor.delete(container, self.sandbox)
            await self.monitor.forget(container)
        await self.host.unpin_namespaces([self.netns])
        left = [str(pid) for pid in await self.host.cgroup_pids(self.cgroup)]
        await self.host.remove_cgroup(self.cgroup)
        for directory in ("runc", "oci", "runsc", "exits", "persist", "exec"):
            left += [str(entry) for entry in (self.run / directory).glob("*")]
        shutil.rmtree(self.run)
        return left

    async def create(self, *argv: str, **config: Any) -> str:
        """Create a container of a root filesystem with busybox and return its ID."""
        container = new_id()
        rootfs = self._bundle(container) / "rootfs"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (rootfs / name).mkdir()
        shutil.copy(tool("busybox"), rootfs / "bin/busybox")
        for applet in _APPLETS:
            (rootfs / "bin" / applet).symlink_to("busybox")
        asked = api_pb2.ContainerConfig(command=argv, **config)
        asked.metadata.name = "c"
        wanted = ContainerInput(id=container, config=asked, image=ImageConfig(), rootfs=rootfs)
        spec = container_spec(self._pod(), wanted, self.facts)
        await self._create(container, spec, is_root=False, tty=asked.tty, stdin=asked.stdin)
        return container

    async def start(self, container: str) -> None:
        """Start a container."""
        await self.executor.start(container, self.sandbox, is_root=False)

    async def launch(self, *argv: str, **config: Any) -> str:
        """Create and start a container."""
        container = await self.create(*argv, **config)
        await self.start(container)
        return container

    async def ended(self, container: str) -> Exit:
        """Wait for a container's exit."""
        assert await self.host.wait(self.made[container].monitor, timeout=20)
        ended = self.monitor.exit(container)
        assert ended is not None
        return ended

    async def exec(self, container: str, *argv: str, timeout: float | None = 20) -> tuple[int, bytes, bytes]:
        """Run a command in a container."""
        spec = json.loads((self.run / "containers" / container / "config.json").read_text())
        process = exec_process(spec, argv)
        done = await self.executor.exec_sync(container, self.sandbox, process, timeout=timeout)
        return done.exit_code, done.stdout, done.stderr

    async def _create(
        self, container: str, spec: dict[str, Any], *, is_root: bool, tty: bool = False, stdin: bool = False
    ) -> None:
        self.executor.adapt_spec(spec, self.sandbox, is_root=is_root)
        bundle = self.run / "containers" / container
        (bundle / "config.json").write_text(json.dumps(spec))
        runtime = self.executor.monitor_runtime(container, self.sandbox, is_root=is_root)
        request = MonitorRequest(
            container_id=container,
            name="c",
            bundle=bundle,
            runtime=runtime.path,
            runtime_flags=runtime.flags,
            cgroup=monitor_cgroup(self.cgroup),
            tty=tty,
            stdin=stdin,
            log_path=None if is_root else self.log_file(container),
        )
        try:
            self.made[container] = await self.monitor.create(request)
        except BaseException:
            await self.executor.delete(container, self.sandbox)
            await self.monitor.forget(container)
            raise

    def _bundle(self, container: str) -> Path:
        bundle = self.run / "containers" / container
        (bundle / "rootfs").mkdir(parents=True)
        return bundle

    def _pod(self) -> Pod:
        return Pod(
            id=self.sandbox,
            config=api_pb2.PodSandboxConfig(hostname="bench"),
            cgroup=self.cgroup,
            driver="cgroupfs",
            namespaces={"network": str(self.netns)},
            own_kernel=self.executor.traits.own_kernel,
        )


async def until(holds: Any, *, seconds: float = 20) -> None:
    """Wait for a condition on files that no event announces."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)
