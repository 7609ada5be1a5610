"""The command line: output and exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import noderuntime
from noderuntime.cli import run


def test_version_prints_the_distributions_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert capsys.readouterr().out == f"{noderuntime.__version__}\n" == f"{version('noderuntime')}\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file"),
        ("not toml", "config.toml"),
        ("[server]\nsockett = 'x'\n[handlers.runc]\ntype='runc'\npath='/x'\n", "server.sockett"),
        ("[server]\n", "handlers"),
    ],
)
def test_serve_reports_an_invalid_configuration_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, expected: str
) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_text(content)
    assert run(["serve", "--config", str(path)]) == 2
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert expected in written


def test_serve_refuses_its_own_socket_as_upstream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.core.log.configure", lambda level: None)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "config.toml").write_text(
        f"[server]\nsocket = '{tmp_path}/cri.sock'\n[upstream]\nsocket = '{tmp_path}/link/cri.sock'\n"
        "[handlers.runc]\ntype='runc'\npath='/x'\n"
    )
    assert run(["serve", "--config", str(tmp_path / "config.toml")]) == 2
    assert "is the daemon's own socket" in capsys.readouterr().err


def test_run_refuses_an_unknown_command() -> None:
    with pytest.raises(SystemExit) as caught:
        run(["fly"])
    assert caught.value.code == 2


def test_cli_does_not_import_grpc() -> None:
    """The switch runs in a unit that delays the kubelet."""
    script = "import sys, noderuntime.cli; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, env=os.environ).returncode == 0


@pytest.mark.parametrize("library", ["aiohttp", "prometheus_client"])
def test_daemon_does_not_import_optional_libraries_at_start(library: str) -> None:
    script = f"import sys, noderuntime.app; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ, check=False).returncode == 0
