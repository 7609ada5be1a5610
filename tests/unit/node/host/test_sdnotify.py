"""Telling systemd, where there is one to tell."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from noderuntime.core.tasks import Scope
from noderuntime.node.host import sdnotify


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_state_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@noderuntime-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(5)
        monkeypatch.setattr(sdnotify, "_ADDRESS", name)
        sdnotify.notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdnotify, "_ADDRESS", "")
    sdnotify.notify("READY=1")


def test_manager_that_does_not_answer_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sdnotify, "_ADDRESS", str(tmp_path / "nothing"))
    sdnotify.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "full"))
        monkeypatch.setattr(sdnotify, "_ADDRESS", str(tmp_path / "full"))
        for _ in range(1000):
            sdnotify.notify("STATUS=x")
    assert {record.getMessage() for record in caplog.records} == {"service manager was not notified"}


def test_programs_do_not_inherit_what_systemd_tells_the_daemon() -> None:
    told = dict.fromkeys(
        ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"), "1"
    )
    script = f"import os, noderuntime.node.host.sdnotify; print({set(told)!r} & set(os.environ))"
    said = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, env={**os.environ, **told}
    )
    assert said.stdout == b"set()\n"


async def test_start_is_extended_until_it_is_done() -> None:
    sent: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(5), Scope() as starting:
        extending = starting.start(sdnotify.extend_start(0.001, sent.put_nowait), name="extend")
        assert [await sent.get() for _ in range(3)] == ["EXTEND_TIMEOUT_USEC=3000"] * 3
    assert extending.cancelled()
