"""A restart of the daemon takes its socket away for as long as a start takes, whatever its clients do."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from streamclient import websocket

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "gvisor"]
MOST_SECONDS = 2.0
"""From the moment when the socket closes to the end of the process, on a busy machine."""


def seconds_without_socket(daemon: Daemon) -> float:
    """Stop the daemon; return the seconds from the moment when its socket refuses clients to its end."""
    stopping = threading.Thread(target=daemon.stop)
    stopping.start()
    wait_until(lambda: not accepts(daemon.socket), "a closed socket")
    began = time.monotonic()
    stopping.join()
    return time.monotonic() - began


def accepts(path: Path) -> bool:
    """Return whether a process listens on the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("handler", HANDLERS)
async def test_open_streams_do_not_delay_a_restart(daemon: Daemon, kubelet: Kubelet, handler: str) -> None:
    events = kubelet.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
    config = kubelet.pod_config()
    container = kubelet.run_container(kubelet.run(config, handler), config, "main", "exec sleep 1000")
    assert next(events).HasField("pod_sandbox_status")
    request = api_pb2.ExecRequest(container_id=container, cmd=["sh", "-c", "echo on; sleep 60"], stdout=True)
    url = kubelet.runtime.Exec(request, timeout=30).url
    async with await websocket(url, "v5.channel.k8s.io") as client:
        await client.receives(1, b"on")
        before = kubelet.status(container)
        began = time.monotonic()
        seconds = seconds_without_socket(daemon)
        assert max(seconds, time.monotonic() - began) < MOST_SECONDS
    daemon.start()
    assert kubelet.status(container) == before


@pytest.mark.parametrize("handler", HANDLERS)
def test_stop_whose_client_has_left_does_not_kill(kubelet: Kubelet, handler: str) -> None:
    config = kubelet.pod_config()
    stubborn = "trap 'sleep 3; echo lives' TERM; echo up; while :; do sleep 0.1; done"
    container = kubelet.run_container(kubelet.run(config, handler), config, "main", stubborn)
    wait_until(lambda: kubelet.log(config, "main") == ["up"], "the trap")
    stop = api_pb2.StopContainerRequest(container_id=container, timeout=2)
    with pytest.raises(grpc.RpcError) as late:
        kubelet.runtime.StopContainer(stop, timeout=1)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: kubelet.log(config, "main") == ["up", "lives"], "a second after the stop's timeout")
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING


@pytest.mark.parametrize("handler", HANDLERS)
def test_slow_call_is_finished_or_cut_off_before_the_socket_goes(
    daemon: Daemon, kubelet: Kubelet, handler: str
) -> None:
    config = kubelet.pod_config()
    stubborn = "trap 'echo no' TERM; echo up; while :; do sleep 0.1; done"
    container = kubelet.run_container(kubelet.run(config, handler), config, "main", stubborn)
    wait_until(lambda: kubelet.log(config, "main") == ["up"], "the trap")
    stop = api_pb2.StopContainerRequest(container_id=container, timeout=60)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(kubelet.runtime.StopContainer, stop, timeout=90)
        wait_until(lambda: kubelet.log(config, "main") == ["up", "no"], "the signal")
        seconds = seconds_without_socket(daemon)
        assert isinstance(call.exception(), grpc.RpcError)
    assert seconds < MOST_SECONDS
    daemon.start()
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
