"""What a real daemon shows to users and their tools: commands, metrics, its log; and a reload."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.scripts import said_by
from realnode.tools import tool

from noderuntime.cri.v1 import api_pb2

ALL_HANDLERS = ["runc", "gvisor", "theirs"]
"""Our handlers, and one of the upstream's."""


@pytest.fixture
def drop_in(daemon: Daemon) -> Iterator[Path]:
    """Yield a drop-in for the daemon's configuration, and restore the configuration afterwards."""
    directory = daemon.config.parent / "conf.d"
    directory.mkdir()
    yield directory / "50-test.toml"
    shutil.rmtree(directory)
    daemon.stop()
    daemon.start()


_WAIT = "until [ -e /gate/go ]; do sleep 0.05; done"
"""Makes a container wait until the test creates the file ``go`` in its :func:`_gate`."""


def _gate(directory: Path) -> api_pb2.Mount:
    return api_pb2.Mount(host_path=str(directory), container_path="/gate", readonly=True)


def _command(daemon: Daemon, command: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "noderuntime", command, "--socket", str(daemon.socket), *arguments]


def _run(daemon: Daemon, command: str, *arguments: str) -> str:
    """Run a command that succeeds and return its output."""
    done = subprocess.run(
        _command(daemon, command, *arguments), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_tables_and_json_show_both_sides(daemon: Daemon, kubelet: Kubelet) -> None:
    names = {}
    for handler in ("runc", "theirs"):
        config = kubelet.pod_config()
        pod = kubelet.run(config, handler)
        container = kubelet.run_container(pod, config, f"of-{handler}", "exec sleep 1000")
        names[handler] = (pod, config.metadata.name, container)
    pods = {row.split()[0]: row.split() for row in _run(daemon, "pods").splitlines()[1:]}
    containers = {row.split()[0]: row.split() for row in _run(daemon, "ps").splitlines()[1:]}
    for handler, (pod, name, container) in names.items():
        assert pods[pod[:13]][1:6] == ["life", name, "0", "Ready", handler]
        assert containers[container[:13]][1:6] == ["life", name, f"of-{handler}", "0", "Running"]
    listed = json.loads(_run(daemon, "ps", "-o", "json"))["containers"]
    assert {one["id"] for one in listed} == {container for _, _, container in names.values()}


@pytest.mark.parametrize("handler", ALL_HANDLERS)
def test_inspect_shows_processes_by_an_id_prefix(daemon: Daemon, kubelet: Kubelet, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    output = json.loads(_run(daemon, "inspect", "-o", "json", container[:12]))
    assert output["status"]["id"] == container
    assert output["status"]["state"] == "CONTAINER_RUNNING"
    assert Path(f"/proc/{output['info']['info']['pid']}").is_dir()
    assert f"  id: {pod}\n" in _run(daemon, "inspect", pod[:12])


def test_status_shows_the_tools_versions(daemon: Daemon) -> None:
    output = json.loads(_run(daemon, "status", "-o", "json"))
    assert {one["type"]: one["status"] for one in output["status"]["conditions"]}["NetworkReady"]
    assert set(output["info"]["noderuntime"]["handlers"]) == {"runc", "crun", "gvisor"}
    rows = [line.split() for line in _run(daemon, "status").splitlines()]
    version = output["info"]["noderuntime"]["handlers"]["gvisor"]
    assert ["gvisor", "noderuntime", version] in [row[:3] for row in rows]
    assert ["theirs", "upstream"] in [row[:2] for row in rows]


def test_images_lists_the_nodes_images(daemon: Daemon) -> None:
    rows = [line.split() for line in _run(daemon, "images").splitlines()]
    assert ["noderuntime.test/pause:1", "yes"] in [[row[0], row[-1]] for row in rows if row]


@pytest.mark.parametrize("handler", ALL_HANDLERS)
def test_logs_follows_a_rotated_log_to_the_containers_end(
    daemon: Daemon, kubelet: Kubelet, tmp_path: Path, handler: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    script = (
        f"echo first; echo second; {_WAIT}; echo third; echo oops >&2;"
        " head -c 20000 /dev/zero | tr '\\0' x; echo; printf end"
    )
    container = kubelet.run_container(pod, config, "main", script, mounts=[_gate(tmp_path)])
    following = subprocess.Popen(
        _command(daemon, "logs", "-f", container[:12]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == b"first\n"
    log = Path(config.log_directory) / "main.log"
    wait_until(lambda: "second" in log.read_text(), "all of the first file")
    log.rename(log.with_suffix(".rotated"))
    kubelet.runtime.ReopenContainerLog(api_pb2.ReopenContainerLogRequest(container_id=container), timeout=30)
    (tmp_path / "go").touch()
    out, err = following.communicate(timeout=60)
    assert following.returncode == 0
    assert out.decode() == "second\nthird\n" + "x" * 20_000 + "\nend"
    assert err == b"oops\n"
    last = _run(daemon, "logs", "--tail", "1", "--timestamps", container)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d) end", last)


def test_logs_continues_while_the_daemon_is_down(daemon: Daemon, kubelet: Kubelet, tmp_path: Path) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    script = f"echo before; {_WAIT}; echo after"
    container = kubelet.run_container(pod, config, "main", script, mounts=[_gate(tmp_path)])
    following = subprocess.Popen(_command(daemon, "logs", "-f", container), stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    assert following.stdout.readline() == "before\n"
    daemon.kill()
    (tmp_path / "go").touch()
    assert following.stdout.readline() == "after\n"
    assert following.poll() is None, "the end of the container is not known yet"
    daemon.start()
    assert following.communicate(timeout=30)[0] == ""
    assert following.returncode == 0


def _doctor(daemon: Daemon) -> tuple[int, dict[str, dict[str, str]]]:
    command = [sys.executable, "-m", "noderuntime", "doctor", "--config", str(daemon.config), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, {one["check"]: one for one in json.loads(done.stdout)["findings"]}


def test_doctor_passes_here_and_names_a_problem(daemon: Daemon, drop_in: Path) -> None:
    _, found = _doctor(daemon)
    well = [
        *("configuration", "kernel", "overlayfs", "conmon", "busybox", "pause container"),
        *("handler runc", "handler crun", "handler gvisor", "noderuntime socket"),
        *("CNI configuration", "CNI plugin bridge", "upstream"),
    ]
    assert {check: found[check]["state"] for check in well} == dict.fromkeys(well, "ok")
    drop_in.write_text("[handlers.gone]\ntype = 'runc'\npath = '/no/such/runtime'\n")
    status, found = _doctor(daemon)
    assert status == 1
    assert found["handler gone"]["state"] == "fail"
    assert "/no/such/runtime is missing" in found["handler gone"]["found"]
    assert found["handler gone"]["advice"]


def _scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_pods_and_calls(daemon: Daemon, kubelet: Kubelet, drop_in: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    drop_in.write_text(f"[metrics]\naddress = '127.0.0.1:{port}'\n")
    daemon.stop()
    daemon.start()
    for handler in ("runc", "gvisor"):
        config = kubelet.pod_config()
        pod = kubelet.run(config, handler)
        kubelet.run_container(pod, config, "main", "exec sleep 1000")
        with pytest.raises(grpc.RpcError):
            kubelet.run_container(pod, config, "bad", "", command=["/no/such/program"])
    with pytest.raises(grpc.RpcError):
        kubelet.status("0" * 64)

    seen = _scrape(port)
    assert seen['noderuntime_cri_calls_total{code="OK",method="RunPodSandbox"}'] == 2
    assert seen['noderuntime_cri_calls_total{code="NOT_FOUND",method="ContainerStatus"}'] == 1
    assert seen['noderuntime_upstream_errors_total{code="NOT_FOUND"}'] == 1
    assert seen['noderuntime_sandboxes{state="ready"}'] == 2
    assert seen['noderuntime_containers{state="running"}'] == 2
    for handler in ("runc", "gvisor"):
        for phase in ("namespaces", "network", "snapshot", "create", "start"):
            labels = f'{{handler="{handler}",phase="{phase}"}}'
            assert seen[f"noderuntime_pod_phase_duration_seconds_count{labels}"] >= 1
            assert seen[f"noderuntime_pod_phase_duration_seconds_sum{labels}"] > 0
        failures = [
            value
            for series, value in seen.items()
            if series.startswith(f'noderuntime_handler_failures_total{{handler="{handler}"')
        ]
        assert failures == [1], "the program that is not there"
    assert 0 < seen["process_resident_memory_bytes"] < 90 << 20


_LATE = f"[handlers.late]\ntype = 'runc'\npath = {json.dumps(str(tool('runc')))}\n"


def _handlers(kubelet: Kubelet) -> list[str]:
    status = kubelet.runtime.Status(api_pb2.StatusRequest(), timeout=30)
    return [handler.name for handler in status.runtime_handlers]


def test_a_reload_adds_a_handler_and_keeps_used_ones(daemon: Daemon, kubelet: Kubelet, drop_in: Path) -> None:
    def logged(words: str) -> bool:
        return words in daemon.log.read_text()[written:]

    started = daemon.pid
    standing = kubelet.pod_config()
    before = kubelet.run(standing, "gvisor")
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.run(kubelet.pod_config(), "late")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    written = len(daemon.log.read_text())
    drop_in.write_text("[log]\nlevel = 'debug'\n" + _LATE)
    daemon.reload()
    wait_until(lambda: "late" in _handlers(kubelet), "the new handler")
    config = kubelet.pod_config()
    pod = kubelet.run(config, "late")
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    assert kubelet.exec(container, "echo here").stdout == b"here\n"
    assert logged("log_level=debug added=late")

    drop_in.write_text("[server]\nsocket = '/run/elsewhere.sock'\n")
    daemon.reload()
    wait_until(lambda: logged("handler late cannot be removed: pods use it"), "the refusal")
    assert "late" in _handlers(kubelet)
    assert kubelet.exec(container, "echo still here").stdout == b"still here\n"

    kubelet.stop_and_remove(pod)
    daemon.reload()
    wait_until(lambda: "late" not in _handlers(kubelet), "the handler to go")
    assert logged("need a restart")
    assert logged("keys=server.socket")

    drop_in.write_text("[handlers]\nnonsense\n")
    daemon.reload()
    wait_until(lambda: logged("50-test.toml"), "the complaint about the file")
    assert daemon.pid == started
    assert before in kubelet.pods()


def test_every_line_of_the_log_about_a_container_names_its_pod(daemon: Daemon, kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "exit 3")
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")
    with pytest.raises(grpc.RpcError):
        kubelet.run_container(pod, config, "bad", "", command=["/no/such/program"])
    kubelet.stop_and_remove(pod)
    about = [line for line in daemon.log.read_text().splitlines() if pod in line or container in line]
    assert {f"pod=life/{config.metadata.name}" in line for line in about} == {True}
    failed = [line for line in about if 'msg="call failed' in line]
    assert failed
    assert all("container_name=bad" in line for line in failed)
    ended = [line for line in about if 'msg="container ended"' in line and container in line]
    assert ["container_name=main" in line for line in ended] == [True]


def test_a_start_without_a_used_handler_keeps_its_pods(
    daemon: Daemon, kubelet: Kubelet, drop_in: Path
) -> None:
    drop_in.write_text(_LATE)
    daemon.stop()
    daemon.start()
    pod = kubelet.run(kubelet.pod_config(), "late")
    daemon.stop()
    drop_in.unlink()
    daemon.start()
    assert pod in kubelet.pods()
    kubelet.stop_and_remove(pod)
    assert "late" in _handlers(kubelet), "it goes with the next start"
    daemon.stop()
    daemon.start()
    assert "late" not in _handlers(kubelet)


_RAW = """
[handlers.raw]
type = "gvisor"
path = "{runsc}"
[handlers.raw.runsc]
net_raw = true
"""


def test_ping_in_gvisor_needs_net_raw(daemon: Daemon, kubelet: Kubelet, drop_in: Path) -> None:
    drop_in.write_text(_RAW.format(runsc=tool("runsc")))
    daemon.reload()
    wait_until(lambda: "raw" in _handlers(kubelet), "the new handler")
    script = """
        grep CapEff /proc/self/status | cut -f2
        ping -c1 127.0.0.1 2>&1 | grep -oE 'denied|[0-9]+% packet loss'
    """
    output = {handler: said_by(kubelet, handler, script) for handler in ("runc", "gvisor", "raw")}
    for pod in kubelet.pods():  # the handler is removed next
        kubelet.stop_and_remove(pod)
    assert output["runc"] == output["raw"] == ["00000000a80425fb", "0% packet loss"]
    assert output["gvisor"] == ["00000000a80405fb", "denied"]
