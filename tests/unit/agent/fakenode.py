# ruff: noqa: N802 - CRI names the methods
"""A node in a directory: systemd and the kubelet are fakes, sockets and CRI calls are real.

The fake kubelet reads its files as a kubelet does and connects to the socket that they name, so that the
switch observes the same as on a node: a command line, an environment file, a connection in the kernel.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import grpc

from noderuntime.agent import desired, layout
from noderuntime.agent.instance import InstanceSpec
from noderuntime.agent.layout import Layout
from noderuntime.agent.switch import release
from noderuntime.agent.switch.context import Context
from noderuntime.agent.switch.health import is_connected
from noderuntime.agent.switch.plan import DEFAULT_ENDPOINT
from noderuntime.agent.switch.run import apply
from noderuntime.agent.systemd import Systemd
from noderuntime.core.errors import NoderuntimeError
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.cri.v1.api_pb2_grpc import RuntimeServiceServicer, add_RuntimeServiceServicer_to_server
from noderuntime.node.host.base import Completed

CONTAINERD = "/run/containerd/containerd.sock"
FLAG = "--container-runtime-endpoint"
CONFIG_HEAD = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nhealthzPort: 0\n"
UNIT = """\
[Unit]
Description=kubelet
[Service]
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
"""
SPEC = InstanceSpec.model_validate(
    {
        "handlers": [{"name": "runc", "type": "Runc"}, {"name": "gvisor", "type": "GVisor"}],
        "kubelet": {"switchTimeoutSeconds": 120},
    }
)
SHORT = SPEC.model_copy(update={"kubelet": SPEC.kubelet.model_copy(update={"switch_timeout_seconds": 20})})
"""For a test that waits until a kubelet's deadline is over."""


class FakeRuntime(RuntimeServiceServicer):
    """A CRI runtime with sandboxes in memory. ``broken`` maps a handler to its runtime's error."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sandboxes: dict[str, cri.PodSandbox] = {}
        self.broken: dict[str, str] = {}
        self.ran: list[str] = []
        self.containers: dict[str, cri.Container] = {}
        self.upstream: FakeRuntime | None = None
        self.hidden = False
        self.handlers: tuple[str, ...] = ()
        self.config = ""
        """containerd's configuration in its verbose status, as JSON."""
        self.versions: dict[str, str] = {}
        """The versions of noderuntime's handlers in its verbose status."""
        self.status_error = ""

    async def Version(self, request, context):
        return cri.VersionResponse(version="v1", runtime_name=self.name, runtime_version="9.9")

    async def Status(self, request, context):
        if self.status_error:
            await context.abort(grpc.StatusCode.INTERNAL, self.status_error)
        info = {"noderuntime": json.dumps({"handlers": self.versions})} if self.versions else {}
        ready = cri.RuntimeCondition(type="RuntimeReady", status=True)
        return cri.StatusResponse(
            status=cri.RuntimeStatus(conditions=[ready]),
            runtime_handlers=[cri.RuntimeHandler(name=name) for name in self.handlers],
            info=info | ({"config": self.config} if self.config else {}),
        )

    async def RunPodSandbox(self, request, context):
        if request.runtime_handler in self.broken:
            await context.abort(grpc.StatusCode.INTERNAL, self.broken[request.runtime_handler])
        found = self.add(request.config.metadata.name, labels=dict(request.config.labels))
        self.ran.append(request.runtime_handler)
        return cri.RunPodSandboxResponse(pod_sandbox_id=found)

    async def PodSandboxStatus(self, request, context):
        state = self.sandboxes[request.pod_sandbox_id].state
        return cri.PodSandboxStatusResponse(status=cri.PodSandboxStatus(state=state))

    async def ListPodSandbox(self, request, context):
        selector = dict(request.filter.label_selector)
        listed = [
            found for found in self.sandboxes.values() if selector.items() <= dict(found.labels).items()
        ]
        if self.hidden:
            listed = []
        if not selector:
            listed = [found for found in listed if "noderuntime.dev/canary" not in found.labels]
            listed += list(self.upstream.sandboxes.values()) if self.upstream else []
        return cri.ListPodSandboxResponse(items=listed)

    async def ListContainers(self, request, context):
        return cri.ListContainersResponse(containers=list(self.containers.values()))

    async def StopPodSandbox(self, request, context):
        return cri.StopPodSandboxResponse()

    async def RemovePodSandbox(self, request, context):
        self.sandboxes.pop(request.pod_sandbox_id, None)
        return cri.RemovePodSandboxResponse()

    def add(
        self, name: str, *, labels: dict[str, str] | None = None, ready: bool = True, handler: str = "runc"
    ) -> str:
        found = f"{self.name}-{len(self.sandboxes)}"
        self.sandboxes[found] = cri.PodSandbox(
            id=found,
            metadata=cri.PodSandboxMetadata(name=name, namespace="default"),
            state=cri.SANDBOX_READY if ready else cri.SANDBOX_NOTREADY,
            labels=labels or {},
            runtime_handler=handler,
            created_at=1,
        )
        return found


class FakeHost:
    """A fake of ``systemctl`` and the kubelet in a directory. Records the calls of systemctl."""

    def __init__(self, place: Layout) -> None:
        self.layout = place
        self.calls: list[str] = []
        self.daemon = FakeRuntime("noderuntime")
        self.containerd = FakeRuntime("containerd")
        self.daemon.upstream = self.containerd
        self.kubelet_fails_on_noderuntime = False
        self.refuses: dict[str, str] = {}
        """Digests of versions whose ``check`` fails, with its message."""
        self.exits: dict[str, str] = {}
        """Digests of versions whose daemon exits at its start, with its last log line."""
        self.hangs: set[str] = set()
        """Digests of versions whose daemon is never ready."""
        self.breaks: dict[str, dict[str, str]] = {}
        """Digests of versions with handlers that fail."""
        self.loses: set[str] = set()
        """Digests of versions that list no sandboxes."""
        self.on_start: dict[str, Callable[[], None]] = {}
        """What versions do at their start."""
        self.failed: set[str] = set()
        self.log = ""
        self.active: set[str] = set()
        self.oneshots: dict[str, Callable[[], Awaitable[tuple[int, bytes, bytes]]]] = {}
        self.unit_argv: tuple[str, ...] = ()
        self.pid = 100
        self._last_pid = 100
        self._servers: dict[str, grpc.aio.Server] = {}
        self._connection: socket.socket | None = None
        self._endpoint_used: Path | None = None

    @property
    def restarts(self) -> list[str]:
        """The restarted units, in order."""
        return [call.split()[-1] for call in self.calls if call.startswith("restart")]

    async def run(self, argv: Sequence[str], *, timeout: float, **_: object) -> Completed:
        if argv[1:2] == ["check"]:
            problem = self.refuses.get(Path(argv[0]).parents[1].name)
            return (
                Completed(1, b"", f"noderuntime: {problem}\n".encode()) if problem else Completed(0, b"", b"")
            )
        if argv[0] == "journalctl":
            return Completed(0, self.log.encode(), b"")
        if argv[0] != "systemctl":
            return Completed(0, b"", b"")
        verb, *rest = [word for word in argv[1:] if word not in ("--no-ask-password", "--no-pager")]
        self.calls.append(" ".join((verb, *rest)))
        return Completed(*await self._systemctl(verb, rest))

    async def _systemctl(self, verb: str, rest: list[str]) -> tuple[int, bytes, bytes]:
        unit = rest[-1] if rest else ""
        if verb == "show":
            return 0, self._show(unit).encode(), b""
        if verb == "start" and unit in self.oneshots:
            return await self.oneshots[unit]()
        if verb in ("start", "restart"):
            if unit == "kubelet.service":
                await self.restart_kubelet()
            if unit == layout.SERVICE and (verb == "restart" or unit not in self.active):
                if not (self.layout.units / unit).exists():
                    return 5, b"", b"Unit not found."
                if not await self._start_daemon():
                    return 1, b"", b"Job for noderuntime.service failed."
            self.active.add(unit)
            self.failed.discard(unit)
        if verb == "stop":
            self.active.discard(unit)
            self.failed.discard(unit)
            if unit == layout.SERVICE:
                await self.stop_server(str(self.layout.socket))
        return 0, b"", b""

    def _show(self, unit: str) -> str:
        path = self.layout.units / unit
        kubelet = unit == "kubelet.service"
        environment = [
            f"{line.split('=', 1)[1].lstrip('-')} (ignore_errors=yes)"
            for text in self._unit_texts()
            for line in text.splitlines()
            if line.startswith("EnvironmentFile=")
        ]
        shown = {
            "LoadState": "loaded" if path.exists() else "not-found",
            "ActiveState": (
                "failed" if unit in self.failed else "active" if unit in self.active else "inactive"
            ),
            "MainPID": self.pid if kubelet else 50 if unit == layout.SERVICE and unit in self.active else 0,
            "FragmentPath": "/etc/systemd/system/kubelet.service" if kubelet else "",
            "DropInPaths": " ".join(self._drop_ins()) if kubelet else "",
            "EnvironmentFiles": " ".join(environment) if kubelet else "",
        }
        return "".join(f"{key}={value}\n" for key, value in shown.items())

    def _drop_ins(self) -> list[str]:
        found = sorted((self.layout.units / "kubelet.service.d").glob("*.conf"))
        return [f"/{path.relative_to(self.layout.root)}" for path in found]

    def _unit_texts(self) -> list[str]:
        paths = [self.layout.units / "kubelet.service", *map(self.layout.at, self._drop_ins())]
        return [path.read_text() for path in paths if path.exists()]

    async def restart_kubelet(self) -> None:
        """Read the files as systemd and a kubelet do, and connect to the configured endpoint."""
        if self._connection:
            self._connection.close()
            self._connection = None
        self.pid = self._last_pid = self._last_pid + 1
        process = self.layout.proc / str(self.pid)
        (process / "fd").mkdir(parents=True)
        argv = self._argv()
        (process / "cmdline").write_bytes(b"".join(part.encode() + b"\0" for part in argv))
        endpoint = self.layout.at(self._endpoint(argv).removeprefix("unix://"))
        if self.kubelet_fails_on_noderuntime and endpoint == self.layout.socket:
            self.pid = 0
            return
        self._connect(endpoint)

    def _connect(self, endpoint: Path) -> None:
        """Connect the kubelet, as soon as the runtime is there."""
        self._endpoint_used = endpoint
        if not endpoint.exists():
            return
        if self._connection:
            self._connection.close()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(endpoint))
        descriptor = self.layout.proc / str(self.pid) / "fd" / "7"
        descriptor.unlink(missing_ok=True)
        descriptor.symlink_to(f"socket:[{os.fstat(self._connection.fileno()).st_ino}]")

    def _argv(self) -> list[str]:
        variables: dict[str, str] = {}
        command = ""
        for line in (line for text in self._unit_texts() for line in text.splitlines()):
            key, _, value = line.partition("=")
            if key == "Environment":
                name, _, content = shlex.split(value)[0].partition("=")
                variables[name] = content
            elif key == "EnvironmentFile" and (path := self.layout.at(value.lstrip("-"))).exists():
                for word in shlex.split(path.read_text(), comments=True):
                    variables[word.split("=", 1)[0]] = word.split("=", 1)[1]
            elif key == "ExecStart":
                command = value
        expanded = re.sub(r"\$(\w+)", lambda match: variables.get(match[1], ""), command)
        return expanded.split()

    def _endpoint(self, argv: list[str]) -> str:
        value = DEFAULT_ENDPOINT
        named = {word.split("=", 1)[0]: word.split("=", 1)[1] for word in argv if "=" in word}
        texts = [self.layout.at(named["--config"]).read_text()] if "--config" in named else []
        if "--config-dir" in named:
            texts += [
                path.read_text() for path in sorted(self.layout.at(named["--config-dir"]).glob("*.conf"))
            ]
        for text in texts:
            for found in re.findall(r'containerRuntimeEndpoint"?: *"?([^",\s]+)', text):
                value = found
        return named.get(FLAG, value)

    @property
    def version(self) -> str:
        """The version that the daemon's unit runs."""
        return os.readlink(self.layout.current).removeprefix("versions/")

    async def crash(self) -> None:
        """End the daemon as often as systemd starts it."""
        await self.stop_server(str(self.layout.socket))
        self.active.discard(layout.SERVICE)
        self.failed.add(layout.SERVICE)

    async def reboot(self) -> None:
        """Start the units that are enabled, with the files that are on disk."""
        self.active.clear()
        if await self._start_daemon():
            self.active.add(layout.SERVICE)
        await self.restart_kubelet()

    async def _start_daemon(self) -> bool:
        await self.stop_server(str(self.layout.socket))
        self.active.discard(layout.SERVICE)
        if self.version in self.exits:
            self.log = f"level=info\nnoderuntime: {self.exits[self.version]}\n"
            return False
        self.on_start.get(self.version, lambda: None)()
        if self.version in self.hangs:
            await asyncio.sleep(60)
        self.daemon.broken = self.breaks.get(self.version, self.daemon.broken)
        self.daemon.hidden = self.version in self.loses
        (self.layout.state / "ledger.db").touch()
        unit = (self.layout.units / layout.SERVICE).read_text()
        process = self.layout.proc / "50"
        process.mkdir(parents=True, exist_ok=True)
        revision = re.search(r"NODERUNTIME_REVISION=\S+", unit)
        assert revision
        (process / "environ").write_bytes(b"A=b\0" + revision[0].encode() + b"\0")
        await self.serve(self.daemon, self.layout.socket)
        if self._endpoint_used == self.layout.socket and self.pid:
            self._connect(self.layout.socket)
        return True

    async def serve(self, runtime: FakeRuntime, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        server = grpc.aio.server()
        add_RuntimeServiceServicer_to_server(runtime, server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        self._servers[str(path)] = server

    async def stop_server(self, path: str) -> None:
        if server := self._servers.pop(path, None):
            await server.stop(None)

    async def close(self) -> None:
        if self._connection:
            self._connection.close()
        for path in list(self._servers):
            await self.stop_server(path)

    async def cgroup_pids(self, path: str) -> list[int]:
        return []

    async def process(self, pid: int, *, names: str = "") -> None:
        return None

    async def unmount(self, target: Path) -> None:
        raise AssertionError(f"nothing is mounted at {target}")

    async def unpin_namespaces(self, pins: Sequence[Path]) -> None:
        for pin in pins:
            pin.unlink()

    async def remove_cgroup(self, path: str) -> None:
        self.calls.append(f"remove-cgroup {path}")

    async def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)


class FakeNode:
    """A node with containerd and a kubelet that is configured in one of several styles."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.host = FakeHost(self.layout)
        self.context = Context(self.layout, self.host, Systemd(self.host), second=0.05, pause=0.005)  # type: ignore[arg-type]

    def hurry(self) -> None:
        """Shorten all deadlines, for a test that waits until one is over."""
        self.context = replace(self.context, second=0.01)

    def write(self, path: str, text: str) -> Path:
        here = self.layout.at(path)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text(text)
        return here

    async def boot(self, style: str) -> None:
        """Start containerd and a kubelet whose endpoint is configured in this style."""
        (self.layout.proc / "self").mkdir(parents=True)
        self.write("/etc/systemd/system/kubelet.service", UNIT)
        config = CONFIG_HEAD
        if style == "FlagsFile":
            flags = f'# kubeadm\nKUBELET_KUBEADM_ARGS="{FLAG}=unix://{CONTAINERD} --node-ip=10.0.0.1"\n'
            self.write("/var/lib/kubelet/kubeadm-flags.env", flags)
        if style == "ConfigFile":
            config += f"containerRuntimeEndpoint: unix://{CONTAINERD}\n"
            self.write(
                "/var/lib/kubelet/instance-config.yaml", f"containerRuntimeEndpoint: unix://{CONTAINERD}\n"
            )
        if style == "DropIn":
            directory = "--config-dir=/etc/kubernetes/kubelet.conf.d"
            self.write(
                "/etc/systemd/system/kubelet.service", UNIT.replace("config.yaml", f"config.yaml {directory}")
            )
            self.write(
                "/etc/kubernetes/kubelet.conf.d/10.conf", f"containerRuntimeEndpoint: unix://{CONTAINERD}\n"
            )
        if style == "Unit":
            self.write("/etc/systemd/system/kubelet.service", f"{UNIT.rstrip()} {FLAG}=unix://{CONTAINERD}\n")
        self.write("/var/lib/kubelet/config.yaml", config)
        await self.host.serve(self.host.containerd, self.layout.at(CONTAINERD))
        await self.host.restart_kubelet()

    def install(self, spec: InstanceSpec = SPEC, digest: str = "d" * 16, retry: str = "") -> None:
        """Write the files that the agent would write."""
        staged = desired.release(digest, desired.daemon_config(spec, digest))
        staged.units[layout.SWITCH] += f"# of version {digest}\n"
        self.write("/etc/noderuntime/staged.json", staged.model_dump_json())
        self.write("/etc/noderuntime/switch.toml", desired.render(desired.switch_config(spec, digest, retry)))
        (self.layout.state / "switch").mkdir(parents=True, exist_ok=True)
        self.write(f"/opt/noderuntime/versions/{digest}/BUNDLE", digest)
        if release.load(self.layout).serving is None:
            release.link(self.layout.proven, digest)
            release.link(self.layout.previous, digest)
            release.write_units(self.layout, staged, layout.SWITCH_UNITS)

    def run_switch_unit(self) -> None:
        """Make the switch's unit run the real switch."""
        (self.layout.state / "switch").mkdir(parents=True, exist_ok=True)

        async def run() -> tuple[int, bytes, bytes]:
            try:
                await apply(self.context)
            except NoderuntimeError as error:
                return 1, b"", str(error).encode()
            return 0, b"", b""

        self.host.oneshots[layout.SWITCH] = run

    def files(self) -> dict[str, str]:
        """Return the content of every file of the kubelet, by path."""
        found = {}
        for directory in ("var/lib/kubelet", "etc/kubernetes", "etc/systemd/system"):
            for path in sorted((self.layout.root / directory).rglob("*")):
                name = str(path.relative_to(self.layout.root))
                if path.is_file() and "system/noderuntime" not in name:
                    found[name] = path.read_text()
        return found

    @property
    def kubelet_is_switched(self) -> bool:
        """Whether the kubelet is connected to noderuntime."""
        return is_connected(self.layout, self.host.pid) is True
