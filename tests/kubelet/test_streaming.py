"""``kubectl exec``, ``attach``, ``cp``, ``port-forward`` and ``run --rm``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import select
import struct
import subprocess
import termios
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubelet.kit.pods import CLASSES, IMAGE, SERVE, SLEEP, container, named, pod
from kubelet.kit.workloads import Workloads

from harness.paths import tool
from harness.run import CommandError

_SECONDS = 60
_MIB = 1 << 20


def _kubectl(workloads: Workloads, *argv: str) -> list[str]:
    return [tool("kubectl"), f"--kubeconfig={workloads.kubectl.kubeconfig}", *argv]


def _run(workloads: Workloads, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = _kubectl(workloads, *argv)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=_SECONDS, check=False)


@pytest.mark.parametrize("runtime", CLASSES)
def test_exec_separates_streams_and_returns_the_exit_code(workloads: Workloads, runtime: str | None) -> None:
    name = named("exec", runtime)
    workloads.ready(pod(name, container("main", SLEEP), runtime=runtime))
    done = _run(workloads, "exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.stdout, done.returncode) == (b"out\n", 42)
    assert done.stderr.splitlines()[0] == b"err"
    with pytest.raises(CommandError, match="there/is/none"):
        workloads.kubectl.pod_exec(name, "/there/is/none")


@pytest.mark.parametrize("runtime", CLASSES)
def test_exec_passes_its_whole_input(workloads: Workloads, runtime: str | None) -> None:
    name = named("pipe", runtime)
    workloads.ready(pod(name, container("main", SLEEP), runtime=runtime))
    given = os.urandom(8 * _MIB)
    done = _run(workloads, "exec", "-i", name, "--", "cat", stdin=given)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(given).digest()
    counted = _run(workloads, "exec", "-i", name, "--", "wc", "-c", stdin=given)
    assert int(counted.stdout) == len(given)


@contextmanager
def _terminal(command: list[str]) -> Iterator[int]:
    """Run a command on a terminal of 30 lines and 100 columns; yield the other end of the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        yield ours
        assert process.wait(timeout=_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _until(terminal: int, text: bytes) -> bytes:
    """Read from a terminal until the text appears."""
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], _SECONDS)
        assert ready, seen
        seen += os.read(terminal, 4096)
    return seen


@pytest.mark.parametrize("runtime", CLASSES)
def test_exec_terminal_has_the_clients_size(workloads: Workloads, runtime: str | None) -> None:
    name = named("tty", runtime)
    workloads.ready(pod(name, container("main", SLEEP), runtime=runtime))
    with _terminal(_kubectl(workloads, "exec", "-it", name, "--", "sh")) as terminal:
        os.write(terminal, b"test -t 0 && test -t 1 && echo it is a $(echo terminal)\n")
        _until(terminal, b"it is a terminal")
        os.write(terminal, b"until stty size | grep -q 30; do :; done; stty size\n")
        _until(terminal, b"30 100")
        os.write(terminal, b"exit\n")


@pytest.mark.parametrize("runtime", CLASSES)
def test_attach_reads_and_writes_the_first_process(workloads: Workloads, runtime: str | None) -> None:
    name = named("attach", runtime)
    script = "while read line; do echo heard $line; done; echo end of input; exec sleep 1000"
    workloads.ready(pod(name, container("main", script, stdin=True, stdinOnce=True), runtime=runtime))
    done = subprocess.Popen(
        _kubectl(workloads, "attach", "-i", name), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert done.stdin is not None
    assert done.stdout is not None
    done.stdin.write(b"one\ntwo\n")
    done.stdin.close()
    assert [done.stdout.readline() for _ in range(2)] == [b"heard one\n", b"heard two\n"]
    workloads.logged(name, "end of input")
    done.kill()
    done.wait()
    done.stdout.close()


@pytest.mark.parametrize("runtime", CLASSES)
def test_cp_copies_files_to_a_pod_and_back(workloads: Workloads, tmp_path: Path, runtime: str | None) -> None:
    name = named("cp", runtime)
    workloads.ready(pod(name, container("main", SLEEP), runtime=runtime))
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "large").write_bytes(os.urandom(8 * _MIB))
    (tree / "small").write_text("hello\n")
    workloads.kubectl("cp", str(tree), f"{name}:/tmp/tree")
    assert workloads.kubectl.pod_exec(name, "cat", "/tmp/tree/small") == "hello\n"
    workloads.kubectl("cp", f"{name}:/tmp/tree", str(tmp_path / "back"))
    for file in ("small", "below/large"):
        assert (tmp_path / "back" / file).read_bytes() == (tree / file).read_bytes()


@pytest.mark.parametrize("runtime", CLASSES)
def test_port_forward_reaches_the_pod(workloads: Workloads, runtime: str | None) -> None:
    name = named("forward", runtime)
    workloads.ready(pod(name, container("main", SERVE), runtime=runtime))
    command = _kubectl(workloads, "port-forward", f"pod/{name}", ":80")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found is not None
            for _ in range(5):
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/", timeout=_SECONDS) as answer:
                    assert answer.read() == f"{name}\n".encode()
        finally:
            process.kill()


def test_run_with_rm_returns_output_and_removes_the_pod(workloads: Workloads) -> None:
    argv = ("run", "one-off", f"--image={IMAGE}", "--restart=Never", "--rm", "-i", "--quiet")
    done = _run(workloads, *argv, "--", "sh", "-c", "read word; echo output $word", stdin=b"hello\n")
    assert b"output hello" in done.stdout
    assert workloads.kubectl.find("pod", "one-off") is None
