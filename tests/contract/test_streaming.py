"""Exec, attach and port-forward with crictl, into runc and gVisor, over SPDY and WebSocket."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from realnode.crictl import Crictl, Terminal
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until

from noderuntime.cri.v1 import api_pb2

SLEEP = "exec sleep 1000"


@pytest.fixture(params=["runc", "gvisor"])
def handler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["spdy", "websocket"])
def crictl(request: pytest.FixtureRequest, daemon: Daemon) -> Crictl:
    return Crictl(daemon.socket, request.param)


@pytest.fixture
def spdy(daemon: Daemon) -> Crictl:
    """The transport, for tests that do not depend on it."""
    return Crictl(daemon.socket)


def start(kubelet: Kubelet, handler: str, script: str = SLEEP, **fields: object) -> tuple[str, str]:
    """Run a pod with one container and return both IDs."""
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    return pod, kubelet.run_container(pod, config, "main", script, **fields)


def test_exec_gives_streams_and_status(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    done = crictl.run("exec", container, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done.stdout == b"out\n"
    assert done.stderr.startswith(b"err\n")
    assert b"command terminated with exit code 7" in done.stderr
    done = crictl.run("exec", container, "sh", "-c", "kill -9 $$")
    assert b"command terminated with exit code 137" in done.stderr
    assert crictl.run("exec", container, "true").returncode == 0


def test_exec_reads_stdin_to_its_end(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    content = os.urandom(5_000_000)
    done = crictl.run("exec", "-i", container, "sh", "-c", "cat; exit 3", stdin=content)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(content).digest()
    assert b"command terminated with exit code 3" in done.stderr


def test_exec_ends_though_a_child_holds_its_output(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    began = time.monotonic()
    done = spdy.run("exec", container, "sh", "-c", "sleep 999 & echo out; exit 7")
    assert time.monotonic() - began < 10
    assert done.stdout == b"out\n"
    assert b"command terminated with exit code 7" in done.stderr


def test_exec_of_a_missing_program_reports_the_error(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    done = crictl.run("exec", container, "/no/such/program")
    assert done.returncode != 0
    assert done.stdout == b""
    assert b"error executing command in container" in done.stderr
    assert b"/no/such/program" in done.stderr


def test_exec_is_rejected_for_invalid_requests(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    kubelet.runtime.StopContainer(api_pb2.StopContainerRequest(container_id=container, timeout=0))
    for verb, arguments in (("exec", ("true",)), ("attach", ())):
        done = spdy.run(verb, container, *arguments)
        assert done.returncode != 0
        assert b"is not running" in done.stderr


def size(terminal: Terminal) -> str:
    """Ask the shell on a terminal for its size. A resize is asynchronous, so it can be the old size."""
    terminal.type("stty size\n")
    output = re.search(r"(\d+ \d+)\r\n", terminal.shows("# "))
    return output.group(1) if output else ""


def test_exec_on_a_terminal(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    with Terminal(crictl.argv("exec", "-it", container, "sh"), rows=33, columns=101) as terminal:
        terminal.shows("# ")
        terminal.type("stty size; echo $TERM\n")
        terminal.shows("33 101\r\nxterm\r\n")
        terminal.type("sh -c 'echo ready; exec sleep 1000'\n")
        terminal.shows("ready\r\n")
        terminal.resize(44, 122)
        terminal.type("\x03")
        terminal.shows("# ")
        wait_until(lambda: size(terminal) == "44 122", "the new size")
        terminal.type("exit 5\n")
        terminal.shows("exit code 5")
        assert terminal.ends() != 0


def test_a_resize_reaches_the_program(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"
    with Terminal(spdy.argv("exec", "-it", container, "sh", "-c", script)) as terminal:
        terminal.shows("ready")
        terminal.resize(44, 122)
        terminal.shows("44 122\r\n")


def test_a_disconnect_hangs_up_the_terminal(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    script = "trap 'echo hangup >/tmp/seen; exit' HUP; echo ready; while :; do sleep 0.1; done"
    with Terminal(spdy.argv("exec", "-it", container, "sh", "-c", script)) as terminal:
        terminal.shows("ready")
        terminal.kill()
        wait_until(lambda: kubelet.exec(container, "cat /tmp/seen").stdout == b"hangup\n", "SIGHUP")


def test_a_disconnect_breaks_the_pipes(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler)
    script = "echo $$ >/tmp/pid; cat; echo eof >/tmp/seen; while echo x; do sleep 0.1; done"
    with Terminal(spdy.argv("exec", "-i", container, "sh", "-c", script)) as terminal:
        wait_until(lambda: kubelet.exec(container, "cat /tmp/pid").exit_code == 0, "it runs")
        terminal.kill()
        wait_until(lambda: kubelet.exec(container, "cat /tmp/seen").stdout == b"eof\n", "its stdin ends")
        wait_until(lambda: kubelet.exec(container, "kill -0 $(cat /tmp/pid)").exit_code != 0, "SIGPIPE")


def test_attach_receives_new_output_and_sends_input(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    _, container = start(
        kubelet, handler, "echo before; while read word; do echo heard $word; done", stdin=True
    )
    for word in ("one", "two"):
        with Terminal(crictl.argv("attach", "-i", container)) as terminal:
            terminal.type(f"{word}\n")
            assert "before" not in terminal.shows(f"heard {word}")
            terminal.type("\x04")  # the end of what is typed, and nothing to the container
            assert terminal.ends() == 0
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING


def test_attach_sends_both_streams_until_the_exit(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    script = "read go; echo out; echo err >&2; exit 4"
    _, container = start(kubelet, handler, script, stdin=True, stdin_once=True)
    done = crictl.run("attach", "-i", container, stdin=b"go\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")
    wait_until(lambda: kubelet.status(container).exit_code == 4, "its end")


def test_stdin_once_ends_with_the_first_client(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler, "cat; echo bye", stdin=True, stdin_once=True)
    assert crictl.run("attach", "-i", container, stdin=b"words\n").stdout == b"words\nbye\n"
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")


def test_attach_to_a_terminal(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    _, container = start(kubelet, handler, "exec sh", stdin=True, tty=True)
    with Terminal(crictl.argv("attach", "-it", container), rows=33, columns=101) as terminal:
        terminal.type("\n")
        terminal.shows("# ")
        wait_until(lambda: size(terminal) == "33 101", "the size at the start")
        for rows in (30, 44):
            terminal.resize(rows, 122)
            wait_until(lambda: size(terminal) == f"{rows} 122", "the new size")  # noqa: B023 - called at once
        terminal.type("exit 6\n")
        assert terminal.ends() == 0
    wait_until(lambda: kubelet.status(container).exit_code == 6, "its end")


LISTENS, ESTABLISHED = b"0A", b"01"


def sockets(kubelet: Kubelet, container: str) -> set[bytes]:
    """Return the states of the pod's sockets on port 8080."""
    lines = kubelet.exec(container, "cat /proc/net/tcp /proc/net/tcp6").stdout.splitlines()
    return {fields[3] for fields in map(bytes.split, lines) if fields[1].endswith(b":1F90")}


def listens(kubelet: Kubelet, container: str) -> None:
    """Wait until a socket listens on port 8080."""
    wait_until(lambda: LISTENS in sockets(kubelet, container), "it listens")


def serve(kubelet: Kubelet, handler: str, script: str) -> str:
    """Run a pod whose container listens, and return the pod's ID."""
    pod, container = start(kubelet, handler, script)
    wait_until(
        lambda: b":1F90 " in kubelet.exec(container, "cat /proc/net/tcp /proc/net/tcp6").stdout, "it listens"
    )
    return pod


HTTPD = "mkdir /tmp/web; echo it works >/tmp/web/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp/web"


def fetch(port: int, question: bytes = b"GET / HTTP/1.0\r\n\r\n", *, half_close: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        asking = threading.Thread(target=client.sendall, args=(question,))
        asking.start()
        if half_close:
            asking.join()
            client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
        asking.join()
        return answer


def test_port_forward_reaches_localhost_of_the_pod(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    pod = serve(kubelet, handler, HTTPD)
    with crictl.forwarded(pod, 8080) as port:
        for _ in range(3):
            assert fetch(port).endswith(b"it works\n")
        answers: list[bytes] = []
        threads = [threading.Thread(target=lambda: answers.append(fetch(port))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.endswith(b"it works\n") for answer in answers] == [True] * 20


def test_port_forward_carries_much_both_ways(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    pod = serve(kubelet, handler, "while :; do nc -l -p 8080 -e sh -c 'head -c 3000000'; done")
    content = os.urandom(3_000_000)
    with crictl.forwarded(pod, 8080) as port:
        assert hashlib.sha256(fetch(port, content)).digest() == hashlib.sha256(content).digest()


def test_port_forward_half_closes(kubelet: Kubelet, crictl: Crictl, handler: str) -> None:
    answer = "cat >/tmp/question; sleep 2; echo heard; cat /tmp/question"
    pod = serve(kubelet, handler, f"while :; do nc -l -p 8080 -e sh -c '{answer}'; done")
    with crictl.forwarded(pod, 8080) as port:
        assert fetch(port, b"word\n", half_close=True) == b"heard\nword\n"


def test_port_forward_to_a_slow_pod_loses_no_data(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    pod = serve(kubelet, handler, "while :; do nc -l -p 8080 -e sh -c 'sleep 2; sha256sum'; done")
    content = os.urandom(3_000_000)
    with spdy.forwarded(pod, 8080) as port:
        answer = fetch(port, content, half_close=True)
    assert answer.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_port_forward_closes_after_a_disconnect(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    pod, container = start(
        kubelet, handler, "nc -l -p 8080 -e sleep 1000; echo closed >/tmp/seen; sleep 1000"
    )
    listens(kubelet, container)
    with spdy.forwarded(pod, 8080) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"x")
        wait_until(lambda: ESTABLISHED in sockets(kubelet, container), "a connection")
    wait_until(lambda: ESTABLISHED not in sockets(kubelet, container), "its end")


def test_port_forward_to_a_closed_port_fails(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    pod, _ = start(kubelet, handler)
    with spdy.forwarded(pod, 8081) as port, pytest.raises((ConnectionError, AssertionError)):
        assert fetch(port) != b""


def test_port_forward_to_ipv6_alone(kubelet: Kubelet, spdy: Crictl) -> None:
    pod = serve(kubelet, "runc", HTTPD.replace("127.0.0.1:8080", "[::1]:8080"))
    with spdy.forwarded(pod, 8080) as port:
        assert fetch(port).endswith(b"it works\n")


def test_port_forward_into_a_pod_on_the_nodes_network(kubelet: Kubelet, spdy: Crictl, handler: str) -> None:
    config = kubelet.pod_config()
    config.linux.security_context.namespace_options.network = api_pb2.NODE
    pod = kubelet.run(config, handler)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        spdy.forwarded(pod, listener.getsockname()[1]) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as client,
        listener.accept()[0] as accepted,
    ):
        client.sendall(b"through the pod")
        accepted.settimeout(30)
        assert accepted.recv(100) == b"through the pod"


def test_sessions_of_upstream_pods_are_served_by_it(kubelet: Kubelet, daemon: Daemon) -> None:
    _, ours = start(kubelet, "runc")
    _, theirs = start(kubelet, "theirs")
    request = api_pb2.ExecRequest(cmd=["true"], stdout=True)
    urls = []
    for container in (ours, theirs):
        request.container_id = container
        urls.append(kubelet.runtime.Exec(request, timeout=20).url)
    assert urls[0].split("/exec/")[0] != urls[1].split("/exec/")[0]
    assert Crictl(daemon.socket).run("exec", theirs, "echo", "hello").stdout == b"hello\n"


def test_a_restarted_daemon_serves_new_sessions(kubelet: Kubelet, daemon: Daemon, spdy: Crictl) -> None:
    _, container = start(kubelet, "runc", "while read word; do echo heard $word; done", stdin=True)
    with Terminal(spdy.argv("attach", "-i", container)) as terminal:
        terminal.type("one\n")
        terminal.shows("heard one")
        daemon.kill()
        terminal.ends()
    daemon.start()
    with Terminal(spdy.argv("attach", "-i", container)) as terminal:
        terminal.type("two\n")
        terminal.shows("heard two")


def test_sessions_leave_no_files_in_the_run_directory(kubelet: Kubelet, daemon: Daemon, spdy: Crictl) -> None:
    _, container = start(kubelet, "runc")
    spdy.run("exec", container, "true")
    spdy.run("exec", container, "/no/such/program")
    assert list(Path(daemon.run / "exec").iterdir()) == []
