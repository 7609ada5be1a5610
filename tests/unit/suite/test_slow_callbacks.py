"""The contract tests' detector of blocked event loops: load must not fail it, blocking calls must."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_MODULE = Path(__file__).parents[2] / "contract/realnode/slow_callbacks.py"
pytestmark = pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="the kernel has no schedstat"
)

_PROGRAM = """
import asyncio, os, runpy, signal, subprocess, sys, threading, time
watch = runpy.run_path(sys.argv[1])["Watch"]()
watch.install()
script = f"read _ && sleep 0.2 && kill -CONT {os.getpid()}"
CONTINUE = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)

def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def hold_the_gil():
    time.sleep(0.005)
    sum(range(int(sys.argv[3])))

def with_a_thread():
    threading.Thread(target=hold_the_gil).start()
    time.sleep(0.02)

def start_threads():
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        threading.Thread(target=int).start()

def stand_still():
    # All threads stop for a while.
    os.write(CONTINUE.stdin.fileno(), b"\\n")
    os.kill(os.getpid(), signal.SIGSTOP)

async def main():
    await asyncio.sleep(0.05)
    os.nice(int(sys.argv[4]))
    began = time.monotonic()
    asyncio.get_running_loop().call_soon(eval(sys.argv[2]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print(time.monotonic() - began, flush=True)
    os._exit(0)

asyncio.run(main())
"""


def run(callback: str, *, numbers: int = 0, nice: int = 0) -> tuple[float, str]:
    """Run a callback in a watched loop. Return the seconds that it took, and the reports."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(_MODULE), callback, str(numbers), str(nice)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout), done.stderr


@pytest.fixture
def busy_cpu() -> Iterator[None]:
    """Restrict this process and its children to one CPU, which another program uses up."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    program = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as load:
        assert load.stdout is not None
        load.stdout.readline()
        yield
        load.kill()
    os.sched_setaffinity(0, cpus)


@pytest.mark.parametrize("callback", ["lambda: time.sleep(0.2)", "lambda: compute(0.2)"])
def test_blocking_callback_is_reported(callback: str) -> None:
    _, reports = run(callback)
    assert "slow callback" in reports


def test_callback_blocked_by_a_thread_with_the_gil_is_reported() -> None:
    took, reports = run("with_a_thread", numbers=30_000_000)
    assert took > 0.1
    assert "slow callback" in reports


@pytest.mark.usefixtures("busy_cpu")
@pytest.mark.parametrize(
    ("callback", "numbers"),
    [("lambda: compute(0.01)", 0), ("with_a_thread", 1_000_000), ("start_threads", 0)],
)
def test_callback_that_waits_for_a_cpu_is_not_reported(callback: str, numbers: int) -> None:
    took, reports = run(callback, numbers=numbers, nice=19)
    assert took > 0.05, "the CPU was not busy"
    assert reports == ""


def test_callback_on_a_machine_that_stands_still_is_not_reported() -> None:
    took, reports = run("stand_still")
    assert took > 0.1
    assert reports == ""


@pytest.mark.usefixtures("busy_cpu")
def test_blocking_callback_on_a_busy_cpu_is_reported() -> None:
    _, reports = run("lambda: time.sleep(0.5)")
    assert "slow callback" in reports
