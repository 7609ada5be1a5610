"""Thousands of requests that nobody foresaw, sent to the live socket of a daemon that stands alone.

Whatever is asked, the answer is a reply or a status of ours in one line; the daemon stays up and well,
keeps no files open, and when its pods are gone nothing of them is left.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from realnode.containerd import IMAGE, Containerd
from realnode.daemon import Daemon
from realnode.hostile import Requests
from realnode.pods import Kubelet, wait_until
from realnode.traces import remove_cgroups, traces

from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.routes import Method, Route, methods

_SECONDS = 50.0
_AT_LEAST = 1000
_FDS = 8
"""Allowance for descriptors that come and go: connections, a database's journal."""

_OURS = [one for one in methods() if one.route is not Route.UPSTREAM]
_ENDING = {"StopPodSandbox", "RemovePodSandbox", "StopContainer", "RemoveContainer"}

_ANSWERS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
}
"""INTERNAL only with the output of a tool or the kernel: see :meth:`World.send`."""


class World:
    """A daemon with a running pod and container, and the responses to what was sent to it."""

    def __init__(self, daemon: Daemon, kubelet: Kubelet, room: Path) -> None:
        self.daemon = daemon
        self.kubelet = kubelet
        self.began = time.monotonic()
        self.answers: Counter[str] = Counter()
        self.config = kubelet.pod_config()
        self.pod = self.container = ""
        self.ensure()
        self.files = _open_files(daemon)
        self.requests = Requests(room, kubelet.parent, (self.pod, self.container))

    @property
    def over(self) -> bool:
        """Return whether the time is up."""
        return time.monotonic() - self.began > _SECONDS

    def ensure(self) -> None:
        """Make sure that a pod and a container run."""
        if self.container in self.kubelet.containers() and self._runs():
            return
        for pod in self.kubelet.pods():
            self.kubelet.stop_and_remove(pod)
        self.pod = self.kubelet.run(self.config, "runc")
        self.container = self.kubelet.run_container(self.pod, self.config, "main", "exec sleep 100000")

    def _runs(self) -> bool:
        return self.kubelet.status(self.container).state == api_pb2.CONTAINER_RUNNING

    def seed(self, method: Method) -> Any:
        """Return a valid request, to be changed."""
        request: Any = method.request()
        if method.name == "RunPodSandbox":
            request.config.CopyFrom(self.kubelet.pod_config())
            request.runtime_handler = "runc"
        elif method.name == "CreateContainer":
            request.pod_sandbox_id = self.pod
            request.config.metadata.name = uuid.uuid4().hex
            request.config.image.image = IMAGE
            request.config.command.extend(["sleep", "1000"])
        elif method.name == "ExecSync":
            request.container_id, request.timeout = self.container, 5
            request.cmd.append("true")
        elif method.name not in _ENDING and method.id_field == "container_id":
            request.container_id = self.container
        elif method.name not in _ENDING and method.id_field == "pod_sandbox_id":
            request.pod_sandbox_id = self.pod
        return request

    def send(self, method: Method, raw: bytes) -> None:
        """Send a request and check the response."""
        reply = method.response()
        try:
            reply = self._call(method, raw)
            self.answers["OK"] += 1
        except grpc.RpcError as error:
            self._judge(error, (method.name, raw))
        self._undo(method, reply)

    def _judge(self, error: grpc.RpcError, asked: object) -> None:
        """Fail unless the error is a known status code with a one-line message."""
        details = str(error.details())
        self.answers[error.code().name] += 1
        assert error.code() in _ANSWERS, (asked, details)
        assert "internal error (" not in details, (asked, details)
        assert "\n" not in details
        assert len(details) <= 2000

    def _call(self, method: Method, raw: bytes) -> Any:
        channel = self.kubelet.channel
        if not method.streams:
            return method.response.FromString(channel.unary_unary(method.path)(raw, timeout=60))
        stream = channel.unary_stream(method.path)(raw, timeout=60 if method.route is Route.JOIN else 0.01)
        for body in stream:
            method.response.FromString(body)
        return method.response()

    def _undo(self, method: Method, reply: Any) -> None:
        """Undo what a request created, with CRI calls."""
        runtime = self.kubelet.runtime
        if method.name == "RunPodSandbox" and reply.pod_sandbox_id:
            runtime.StopPodSandbox(
                api_pb2.StopPodSandboxRequest(pod_sandbox_id=reply.pod_sandbox_id), timeout=60
            )
            runtime.RemovePodSandbox(
                api_pb2.RemovePodSandboxRequest(pod_sandbox_id=reply.pod_sandbox_id), timeout=60
            )
        elif method.name == "CreateContainer" and reply.container_id:
            runtime.RemoveContainer(
                api_pb2.RemoveContainerRequest(container_id=reply.container_id), timeout=60
            )
        elif method.name in _ENDING:
            self.ensure()


@pytest.fixture(scope="module")
def world(containerd: Containerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Yield the world, and check at its end that nothing is left."""
    room = tmp_path_factory.mktemp("room")
    run = Path(tempfile.mkdtemp(prefix="nrct-", dir="/run"))
    daemon = Daemon(run, Path(tempfile.mkdtemp(prefix="noderuntime-state-")), containerd, alone=True)
    daemon.start()
    kubelet = Kubelet(daemon.socket, room, f"/noderuntime-any-{uuid.uuid4().hex[:8]}")
    try:
        yield World(daemon, kubelet, room)
    finally:
        kubelet.channel.close()
        daemon.remove()
        remove_cgroups(kubelet.parent)


@settings(
    max_examples=3_000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_any_request_gets_a_valid_response(world: World, data: st.DataObject) -> None:
    method = data.draw(st.sampled_from(_OURS))
    request = world.seed(method) if data.draw(st.integers(0, 9)) else method.request()
    for _ in range(data.draw(st.integers(1, 4))):
        world.requests.change(data.draw, request)
    if not world.over:
        world.send(method, request.SerializeToString())


@settings(max_examples=300, deadline=None, database=None)
@given(method=st.sampled_from(_OURS), raw=st.binary(max_size=200))
def test_random_bytes_get_a_valid_response(world: World, method: Method, raw: bytes) -> None:
    if method.name not in _ENDING:
        world.send(method, raw)


def test_the_daemon_works_and_nothing_is_left(world: World) -> None:
    assert world.answers.total() > _AT_LEAST, "too few to mean anything"
    assert world.answers["OK"] > 100
    assert world.answers["INVALID_ARGUMENT"] > 100
    world.ensure()
    assert world.kubelet.exec(world.container, "echo well").stdout == b"well\n"
    log = world.daemon.log.read_text()
    assert not [word for word in ("unforeseen", "unexpectedly") if word in log]
    for pod in world.kubelet.pods():
        world.kubelet.stop_and_remove(pod)
    assert world.kubelet.containers() == set()
    wait_until(lambda: _open_files(world.daemon) <= world.files + _FDS, "files to be closed")
    assert traces(world.daemon.run, world.kubelet.parent, daemon=world.daemon.pid) == []
    pid = world.daemon.pid
    world.daemon.stop()
    with closing(sqlite3.connect(f"file:{world.daemon.ledger}?mode=ro", uri=True)) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for table in ("sandboxes", "containers"):
            assert ledger.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    world.daemon.start()
    assert world.daemon.pid != pid
    assert world.kubelet.pods() == set()


def _open_files(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))
