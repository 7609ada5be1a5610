"""The worker's program: imports, exit, and unexpected errors."""

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
from noderuntime.node.layers.growth import GrowingFile
from noderuntime.node.layers.pool import Unpackers

async def main():
    file = open(sys.argv[1], "rb")
    growth = GrowingFile(file.fileno(), os.path.getsize(sys.argv[1]), complete=sys.argv[3] == "complete")
    task = asyncio.create_task(Unpackers(1).unpack(growth, Path(sys.argv[2]), "TAR"))
    while not os.listdir(sys.argv[2]):
        await asyncio.sleep(0.001)
    print(*(process.pid for process in descendants(os.getpid())), flush=True)
    await task

asyncio.run(main())
""".replace("TAR", TAR)


@pytest.mark.parametrize("state", ["growing", "complete"])
async def test_worker_exits_with_its_daemon(tmp_path, new_directory, state):
    """The worker either waits for more bytes or has half a minute of work left."""
    blob = tmp_path / "blob"
    blob.write_bytes(gzip.compress(entry("a/b") * 50_000) * 38)
    argv = [sys.executable, "-c", DAEMON, blob, new_directory(), state]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}) as daemon:
        template, worker = map(int, daemon.stdout.readline().split())
        daemon.kill()
        await ended(template)
        await ended(worker)


def test_worker_does_not_import_heavy_modules():
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


class WorkerThread:
    """A worker in a thread, for errors that cannot be caused in a process."""

    def __init__(self):
        self.daemon_end, remote_end = socket.socketpair()
        self.thread = threading.Thread(target=self._run, args=(remote_end,))
        self.thread.start()

    def _run(self, remote_end):
        with remote_end, pytest.raises(EOFError):
            Worker(remote_end).run()

    def request(self):
        with open(os.devnull, "rb") as file:
            socket.send_fds(
                self.daemon_end, [wire.encode(["unpack", "/nowhere", *DEFAULT_LIMITS])], [file.fileno()]
            )
        (length,) = wire.LENGTH.unpack(self.daemon_end.recv(4))
        return wire.decode(self.daemon_end.recv(length))

    def close(self):
        self.daemon_end.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.mark.parametrize(
    ("raised", "kind", "expected"),
    [
        (MemoryError(), ResourceExhausted, "needs more than the worker's limit of 536870912 bytes"),
        (ZeroDivisionError("odd"), Internal, r"failed: ZeroDivisionError\('odd'\)"),
    ],
)
def test_worker_survives_an_unexpected_error(monkeypatch, raised, kind, expected):
    def broken(*_):
        raise raised

    monkeypatch.setattr(job, "unpack", broken)
    worker = WorkerThread()
    for _ in range(2):
        status, *arguments = worker.request()
        assert status == "failed"
        with pytest.raises(kind, match=expected):
            raise wire.error_of(*arguments)
    worker.close()
