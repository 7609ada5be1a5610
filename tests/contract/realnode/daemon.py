"""The daemon as a process, with a containerd or standalone, in directories of the test run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from realnode import slow_callbacks
from realnode.containerd import Containerd
from realnode.crun import crun
from realnode.tools import tool
from realnode.traces import sweep

_START_SECONDS = 30.0


@dataclass(frozen=True)
class Alone:
    """The images of a standalone daemon: its own store, with the registries of ``certs``."""

    cni_conf: Path
    certs: Path

    def tables(self) -> dict[str, dict[str, object]]:
        """Return the configuration tables for images."""
        return {"images": {"backend": "native", "certs_dirs": [self.certs]}}


class Daemon:
    """``noderuntime serve``. ``run`` must be short because it contains sockets.

    ``alone`` it passes nothing on: the containerd is its image store only. ``watched`` it reports what holds
    up its event loop.
    """

    def __init__(
        self,
        run: Path,
        state: Path,
        beside: Containerd | Alone,
        *,
        alone: bool = False,
        watched: bool = False,
    ) -> None:
        self._program = ("-P", slow_callbacks.__file__) if watched else ("-m", "noderuntime")
        self._served_from = 0
        self.run = run
        self.socket = run / "noderuntime.sock"
        self.log = state / "noderuntime.core.log"
        self.ledger = state / "state/ledger.db"
        self._state = state
        self._config = state / "config.toml"
        self._process: subprocess.Popen[bytes] | None = None
        for directory in (run, state):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o711)  # root of a user namespace has to pass through
        pause = _pause_rootfs(state / "pause")
        self.cdi = state / "cdi"
        self.cdi.mkdir(exist_ok=True)
        tables: dict[str, dict[str, object]] = {
            "server": {"socket": self.socket, "run_dir": run, "state_dir": state / "state"},
            **_tables(beside, alone=alone),
            "network": {"conf_dir": beside.cni_conf, "plugin_dirs": [tool("bridge").parent]},
            "tools": {"conmon": tool("conmon"), "busybox": tool("busybox"), "pause_rootfs": pause},
            "devices": {"cdi_dirs": [self.cdi]},
            "handlers.runc": {"type": "runc", "path": tool("runc")},
            "handlers.crun": {"type": "oci", "path": crun(state)},
            "handlers.gvisor": {"type": "gvisor", "path": tool("runsc")},
        }
        self._config.write_text("".join(_table(name, values) for name, values in tables.items()))

    @property
    def pid(self) -> int:
        """The daemon's PID."""
        assert self._process is not None
        return self._process.pid

    @property
    def config(self) -> Path:
        """Its configuration file. Drop-ins are in ``conf.d`` beside it."""
        return self._config

    def reload(self) -> None:
        """Reload the configuration, which happens at once but is not acknowledged."""
        os.kill(self.pid, signal.SIGHUP)

    def start(self) -> None:
        """Start it and wait until CRI responds."""
        environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        environment.pop("JOURNAL_STREAM", None)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, "serve", "--config", self._config],
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._serves():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self._served_from = self.log.stat().st_size

    def slow_callbacks(self) -> list[str]:
        """Return and forget the reports of callbacks that held up the event loop of the serving daemon."""
        with self.log.open("rb") as log:
            log.seek(self._served_from)
            written = log.read()
        self._served_from += len(written)
        return [
            line
            for line in written.decode(errors="replace").splitlines()
            if line.startswith(slow_callbacks.MARK)
        ]

    def kill(self) -> None:
        """Kill it with SIGKILL, like a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it with SIGTERM. Its pods keep running."""
        assert self._end(signal.SIGTERM) == 0, self.log.read_text()

    def remove(self) -> None:
        """Remove all pods, stop, and delete all files, by force if a failed test left them."""
        try:
            if self._process is None or self._process.poll() is not None:
                self.start()
            self._remove_pods()
            self.stop()
        finally:
            self.kill()
            sweep(self.run)
            shutil.rmtree(self._state)
            shutil.rmtree(self.run)

    def _remove_pods(self) -> None:
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            runtime = api_pb2_grpc.RuntimeServiceStub(channel)
            for pod in runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=30).items:
                runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
                runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)

    def _serves(self) -> bool:
        if not self.socket.exists():
            return False
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            try:
                api_pb2_grpc.RuntimeServiceStub(channel).Version(api_pb2.VersionRequest(), timeout=5)
            except grpc.RpcError:
                return False
        return True

    def _end(self, signo: int) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(signo)
        status = self._process.wait(timeout=30)
        self._process = None
        return status


def _tables(beside: Containerd | Alone, *, alone: bool) -> dict[str, dict[str, object]]:
    if isinstance(beside, Alone):
        return beside.tables()
    images = {"images": {"containerd_socket": beside.socket}}
    return images if alone else {"upstream": {"socket": beside.socket}, **images}


def _table(name: str, values: dict[str, object]) -> str:
    """Return a TOML table. JSON strings and arrays are valid TOML."""
    lines = (f"{key} = {json.dumps(value, default=str)}\n" for key, value in values.items())
    return f"[{name}]\n{''.join(lines)}"


def _pause_rootfs(root: Path) -> Path:
    """Create the pause container's root filesystem, as in the bundle."""
    for name in ("dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(tool("catatonit"), root / "pause")
    shutil.copy(tool("busybox"), root / "busybox")
    return root
