"""Containers that are hard to end: their runtime has forgotten them, or the kernel does not let them go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.traces import traces

from noderuntime.cri.v1 import api_pb2

FREEZER = Path("/sys/fs/cgroup/freezer")


@contextmanager
def frozen(pid: int, name: str) -> Iterator[None]:
    """Keep a process in state D: in a frozen cgroup that is not its container's."""
    group = FREEZER / name
    group.mkdir()
    (group / "cgroup.procs").write_text(str(pid))
    (group / "freezer.state").write_text("FROZEN")
    try:
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "its processes have ended")
        group.rmdir()


@pytest.mark.parametrize("state", [None, "", "{}"], ids=["missing", "damaged", "without a PID"])
@pytest.mark.parametrize("call", ["StopContainer", "RemoveContainer", "StopPodSandbox"])
def test_container_that_runc_has_forgotten_is_ended(
    kubelet: Kubelet, daemon: Daemon, state: str | None, call: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "trap 'exit 3' TERM; sleep 1000 & echo up; wait")
    wait_until(lambda: kubelet.log(config, "main") == ["up"], "it waits for the signal")
    file = daemon.run / "runc" / container / "state.json"
    file.unlink()
    if state is not None:
        file.write_text(state)
    if call == "StopContainer":
        kubelet.runtime.StopContainer(
            api_pb2.StopContainerRequest(container_id=container, timeout=20), timeout=60
        )
        assert kubelet.status(container).exit_code == 3
    elif call == "RemoveContainer":
        kubelet.runtime.RemoveContainer(api_pb2.RemoveContainerRequest(container_id=container), timeout=60)
        assert kubelet.containers() == set()
    else:
        kubelet.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60)
        assert kubelet.status(container).exit_code == 137
    kubelet.stop_and_remove(pod)
    assert traces(daemon.run, kubelet.parent, daemon=daemon.pid) == []


@pytest.mark.skipif(not FREEZER.is_dir(), reason="cgroup v1 has no freezer here")
def test_container_in_state_d_is_one_clear_error_until_it_ends(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    pid = kubelet.status_info(container)["pid"]
    request = api_pb2.StopContainerRequest(container_id=container, timeout=0)
    with frozen(pid, config.linux.cgroup_parent.strip("/").replace("/", "-")):
        with pytest.raises(grpc.RpcError) as refused:
            kubelet.runtime.StopContainer(request, timeout=60)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        output = refused.value.details()
        assert (
            f"container {container} did not end 30 s after SIGKILL: process {pid} is in state D, in "
            in output
        )
        assert "\n" not in output
        assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
    kubelet.runtime.StopContainer(request, timeout=60)
    ended = kubelet.status(container)
    assert (ended.state, ended.exit_code, ended.reason) == (api_pb2.CONTAINER_EXITED, 137, "Error")
