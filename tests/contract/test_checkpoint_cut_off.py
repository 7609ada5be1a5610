"""Interrupted checkpoints: real runc, and a CRIU that freezes the container, locks its network, and hangs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.traces import traces

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.cgroup import ROOT

_CRIU = """#!/bin/sh
cd {group}
if [ -e freezer.state ]; then echo FROZEN >freezer.state; else echo 1 >cgroup.freeze; fi
for rules in iptables ip6tables; do
    nsenter --net=/proc/{pid}/ns/net $rules-restore --noflush <<RULES
*filter
:CRIU - [0:0]
-I INPUT -j CRIU
-I OUTPUT -j CRIU
-A CRIU -m mark --mark 0xC114 -j ACCEPT
-A CRIU -j DROP
COMMIT
RULES
done
touch {begun}
exec sleep 1000
"""


@pytest.fixture
def criu(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """The program that the daemon finds as criu; a test writes it."""
    directory = tmp_path / "bin"
    directory.mkdir()
    daemon.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(directory), prepend=":")
        daemon.start()
        yield directory / "criu"
    daemon.stop()
    daemon.start()


def hanging(criu: Path, kubelet: Kubelet) -> tuple[str, Path]:
    """Start a container and a CRIU for it; return its ID and the file that is there when CRIU hangs."""
    config = kubelet.pod_config()
    container = kubelet.run_container(kubelet.run(config, "runc"), config, "main", "exec sleep 1000")
    hierarchy = ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "freezer"
    begun = criu.with_name("begun")
    group = hierarchy / config.linux.cgroup_parent.strip("/") / container
    pid = kubelet.status_info(container)["pid"]
    criu.write_text(_CRIU.format(group=group, begun=begun, pid=pid))
    criu.chmod(0o755)
    return container, begun


def checkpoint(kubelet: Kubelet, container: str, location: Path, timeout: int) -> grpc.Future:
    """CheckpointContainer, not awaited."""
    request = api_pb2.CheckpointContainerRequest(
        container_id=container, location=str(location), timeout=timeout
    )
    return kubelet.runtime.CheckpointContainer.future(request, timeout=60)


def runs(kubelet: Kubelet, container: str) -> bool:
    """Return whether a container runs, is not frozen, and has a network without CRIU's rules."""
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
    enter = ["nsenter", f"--net=/proc/{kubelet.status_info(container)['pid']}/ns/net", "--"]
    for program in ("iptables-save", "ip6tables-save"):
        assert (
            "CRIU" not in subprocess.run([*enter, program], check=True, capture_output=True, text=True).stdout
        )
    return kubelet.exec(container, "echo yes").stdout == b"yes\n"


@pytest.mark.parametrize(("timeout", "seconds"), [(0, 10), (2, 2)])
def test_dump_that_hangs_ends_at_the_timeout(
    kubelet: Kubelet, daemon: Daemon, criu: Path, tmp_path: Path, timeout: int, seconds: int
) -> None:
    container, begun = hanging(criu, kubelet)
    before = time.monotonic()
    refused = checkpoint(kubelet, container, tmp_path / "c.tar", timeout).exception()
    assert refused.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert f"did not finish within {seconds} s" in refused.details()
    assert seconds <= time.monotonic() - before < seconds + 5
    assert begun.exists()
    assert runs(kubelet, container)
    assert not (tmp_path / "c.tar").exists()
    for pod in kubelet.pods():
        kubelet.stop_and_remove(pod)
    assert traces(daemon.run, kubelet.parent, daemon=daemon.pid) == []


def test_daemon_that_died_in_a_dump_leaves_a_container_that_runs(
    kubelet: Kubelet, daemon: Daemon, criu: Path, tmp_path: Path
) -> None:
    container, begun = hanging(criu, kubelet)
    call = checkpoint(kubelet, container, tmp_path / "c.tar", 50)
    wait_until(begun.exists, "CRIU hangs")
    daemon.kill()
    assert call.exception() is not None
    daemon.start()
    wait_until(lambda: "interrupted checkpoint aborted" in daemon.log.read_text(), "the dump is ended")
    assert runs(kubelet, container)
    for pod in kubelet.pods():
        kubelet.stop_and_remove(pod)
    assert traces(daemon.run, kubelet.parent, daemon=daemon.pid) == []
