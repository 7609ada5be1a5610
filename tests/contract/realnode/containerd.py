"""A private containerd with its own root, state and socket, all removed when it stops."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from realnode.image import write_image
from realnode.tools import tool

IMAGE = "noderuntime.test/busybox:1"
_PAUSE = "noderuntime.test/pause:1"

_CONFIG = """
version = 3
root = "{dir}/root"
state = "{run}/state"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = "{run}/containerd.sock"

[ttrpc]
address = "{run}/containerd.sock.ttrpc"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "{dir}/certs.d"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{cni_bin}"]
conf_dir = "{cni_conf}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.theirs]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.theirs.options]
BinaryName = "{runc}"
"""


class Containerd:
    """The process and its directories. ``dir`` must be on a real filesystem, ``run`` be short."""

    def __init__(
        self, directory: Path, run: Path, cni_conf: Path, sandbox_image: str = _PAUSE, more_config: str = ""
    ) -> None:
        self.dir = directory
        self.run = run
        self.socket = run / "containerd.sock"
        self.cni_conf = cni_conf
        self.sandbox_image = sandbox_image
        self.log = directory / "containerd.log"
        self._more_config = more_config
        self._config = directory / "config.toml"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until CRI responds."""
        self.dir.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            _CONFIG.format(
                dir=self.dir,
                run=self.run,
                pause=self.sandbox_image,
                runc=tool("runc"),
                cni_bin=tool("bridge").parent,
                cni_conf=self.cni_conf,
            )
            + self._more_config
        )
        path = f"{tool('containerd-shim-runc-v2').parent}:{os.environ['PATH']}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [tool("containerd"), "--config", self._config],
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": path},
            )
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
            runtime, deadline = api_pb2_grpc.RuntimeServiceStub(channel), time.monotonic() + 30
            while not _is_ready(runtime):
                assert time.monotonic() < deadline, self.log.read_text()[-4000:]
                time.sleep(0.02)

    def name_by_digest(self, name: str) -> None:
        """Add the digest name that a pull gives an image, and wait until CRI lists it."""
        repository = name.rpartition(":")[0]
        listed = self._ctr("images", "list", f"name=={name}").splitlines()[1]
        digest = next(word for word in listed.split() if word.startswith("sha256:"))
        self._ctr("images", "tag", "--force", name, f"{repository}@{digest}")
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            images = api_pb2_grpc.ImageServiceStub(channel)
            wanted = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=name))
            deadline = time.monotonic() + 10
            while not images.ImageStatus(wanted, timeout=10).image.repo_digests:
                assert time.monotonic() < deadline, "containerd does not list the image's digest"

    def tag(self, name: str, new_name: str) -> None:
        """Give an image another name."""
        self._ctr("images", "tag", "--force", name, new_name)

    def import_images(self) -> None:
        """Import the test image and the sandbox image."""
        self.import_image(_PAUSE, ["/bin/sleep", "1000000"])
        self.import_image(IMAGE, ["sh"])

    def import_image(
        self, name: str, command: Sequence[str], entrypoint: Sequence[str] = (), volumes: Sequence[str] = ()
    ) -> None:
        """Import a busybox image with a name (with tag), and wait until CRI lists it."""
        archive = self.dir / "image.tar"
        write_image(archive, name, tool("busybox"), command, entrypoint, volumes=volumes)
        self._ctr("images", "import", str(archive))
        archive.unlink()
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            images = api_pb2_grpc.ImageServiceStub(channel)
            wanted = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=name))
            deadline = time.monotonic() + 10
            while not images.ImageStatus(wanted, timeout=10).HasField("image"):
                assert time.monotonic() < deadline, "containerd does not list the imported image"

    def _ctr(self, *arguments: str) -> str:
        argv = [tool("ctr"), "-a", self.socket, "-n", "k8s.io", *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    @property
    def pid(self) -> int:
        """The daemon's PID."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Stop the daemon. Its pods keep running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL, like a crash."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """Remove all pods, stop, and delete all files, even if it never started."""
        try:
            if self._process is not None:
                self._remove_pods()
        finally:
            self.stop()
            shutil.rmtree(self.dir)
            shutil.rmtree(self.run)

    def _end(self, signo: int) -> None:
        if self._process is not None:
            self._process.send_signal(signo)
            self._process.wait(timeout=30)
            self._process = None

    def _remove_pods(self) -> None:
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            runtime = api_pb2_grpc.RuntimeServiceStub(channel)
            for pod in runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=30).items:
                runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
                runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)


def _is_ready(runtime: api_pb2_grpc.RuntimeServiceStub) -> bool:
    """Return whether Version succeeds. At first it returns that the server is not ready."""
    try:
        runtime.Version(api_pb2.VersionRequest(), timeout=30)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True
