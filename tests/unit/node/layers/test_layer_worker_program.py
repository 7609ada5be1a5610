"""The program of a worker: what it imports, how it ends, and what it says when something is wrong with it."""

import gzip
import os
import socket
import subprocess
import sys
import threading

import pytest
from layer_archives import TAR, entry
from layer_workers import ended

from noderuntime.core.errors import Internal, ResourceExhausted
from noderuntime.node.layers import job, wire
from noderuntime.node.layers.tar.limits import DEFAULT_LIMITS
from noderuntime.node.layers.worker import Worker

DAEMON = """
import asyncio, os, sys
from pathlib import Path
from noderuntime.node.host.process import descendants
from noderuntime.node.layers.growth import Growth
from noderuntime.node.layers.pool import Unpackers

async def main():
    file = open(sys.argv[1], "rb")
    growth = Growth(file.fileno(), os.path.getsize(sys.argv[1]), complete=sys.argv[3] == "complete")
    task = asyncio.create_task(Unpackers(1).unpack(growth, Path(sys.argv[2]), "TAR"))
    while not os.listdir(sys.argv[2]):
        await asyncio.sleep(0.001)
    print(*(process.pid for process in descendants(os.getpid())), flush=True)
    await task

asyncio.run(main())
""".replace("TAR", TAR)


@pytest.mark.parametrize("state", ["growing", "complete"])
async def test_a_worker_does_not_outlive_its_daemon(tmp_path, place, state):
    """Whether it waits for more or has half a minute's work left."""
    blob = tmp_path / "blob"
    blob.write_bytes(gzip.compress(entry("a/b") * 50_000) * 38)
    argv = [sys.executable, "-c", DAEMON, blob, place(), state]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}) as daemon:
        template, worker = map(int, daemon.stdout.readline().split())
        daemon.kill()
        await ended(template)
        await ended(worker)


def test_a_worker_imports_little():
    program = (
        "import sys; sys.path[:] = sys.argv[1:]; import noderuntime.node.layers.template; print(*sys.modules)"
    )
    argv = [sys.executable, "-I", "-S", "-c", program, *sys.path]
    loaded = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    heavy = {
        "asyncio",
        "ctypes",
        "dataclasses",
        "grpc",
        "inspect",
        "logging",
        "pathlib",
        "pydantic",
        "subprocess",
    }
    assert heavy & set(loaded) == set()
    assert "noderuntime.node.layers.worker" in loaded


class Line:
    """A worker in a thread, for what cannot be brought about from outside."""

    def __init__(self):
        self.ours, theirs = socket.socketpair()
        self.thread = threading.Thread(target=self._run, args=(theirs,))
        self.thread.start()

    def _run(self, theirs):
        with theirs, pytest.raises(EOFError):
            Worker(theirs).run()

    def ask(self):
        with open(os.devnull, "rb") as file:
            socket.send_fds(
                self.ours, [wire.packed(["unpack", "/nowhere", *DEFAULT_LIMITS])], [file.fileno()]
            )
        (length,) = wire.LENGTH.unpack(self.ours.recv(4))
        return wire.unpacked(self.ours.recv(length))

    def close(self):
        self.ours.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (MemoryError(), ResourceExhausted, "takes more memory than a worker has"),
        (ZeroDivisionError("odd"), Internal, r"failed: ZeroDivisionError\('odd'\)"),
    ],
)
def test_what_nobody_foresaw_ends_no_worker(monkeypatch, raised, kind, words):
    def broken(*_):
        raise raised

    monkeypatch.setattr(job, "unpack", broken)
    line = Line()
    for _ in range(2):
        said, *what = line.ask()
        assert said == "failed"
        with pytest.raises(kind, match=words):
            raise wire.error_of(*what)
    line.close()
