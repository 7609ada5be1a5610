from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakecri import FakeRuntime, serve

from noderuntime import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def socket(runtime: FakeRuntime, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "cri.sock"
    server = serve(runtime, path)
    yield path
    server.stop(None).wait()


@pytest.fixture
def run(socket: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command against the fake runtime: (exit status, stdout, stderr)."""

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        status = cli.run([command, "--socket", str(socket), *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run
