"""Notifications to systemd."""

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
def test_notify_sends_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@noderuntime-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(5)
        monkeypatch.setattr(sdnotify, "_ADDRESS", name)
        sdnotify.notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_notify_without_a_service_manager_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdnotify, "_ADDRESS", "")
    sdnotify.notify("READY=1")


def test_notify_logs_an_unreachable_service_manager(
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


def test_programs_do_not_inherit_the_variables_of_systemd() -> None:
    variables = dict.fromkeys(
        ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"), "1"
    )
    script = f"import os, noderuntime.node.host.sdnotify; print({set(variables)!r} & set(os.environ))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, env={**os.environ, **variables}
    )
    assert done.stdout == b"set()\n"


async def test_start_timeout_is_extended_until_cancelled() -> None:
    sent: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(5), Scope() as starting:
        extending = starting.start(sdnotify.extend_start(0.001, sent.put_nowait), name="extend")
        assert [await sent.get() for _ in range(3)] == ["EXTEND_TIMEOUT_USEC=3000"] * 3
    assert extending.cancelled()
