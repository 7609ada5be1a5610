"""The exit code of ExecSync, with small scripts in place of the runtime."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from noderuntime.core.ids import new_id
from noderuntime.node.executor.oci import OciExecutor
from noderuntime.node.host.linux import LinuxHost


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("exit 7", 7),
        ("exit 137", 137),
        ("kill -KILL $$", 128 + signal.SIGKILL),
        ("kill -TERM $$", 128 + signal.SIGTERM),
    ],
)
async def test_exec_sync_returns_the_exit_code_of_a_shell(tmp_path: Path, end: str, code: int) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text(f'#!/bin/sh\nwhile [ "$1" != --pid-file ]; do shift; done; echo 42 >"$2"; {end}\n')
    runtime.chmod(0o755)
    executor = OciExecutor("other", LinuxHost(), runtime, tmp_path, systemd_cgroup=False)
    result = await executor.exec_sync(new_id(), "", {"args": ["app"]}, timeout=None)
    assert result.exit_code == code
