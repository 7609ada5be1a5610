"""The command line: what it prints and how it exits."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import noderuntime
from noderuntime.cli import run


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert capsys.readouterr().out == f"{noderuntime.__version__}\n" == f"{version('noderuntime')}\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("not toml", "config.toml"),
        ("[server]\nsockett = 'x'\n[handlers.runc]\ntype='runc'\npath='/x'\n", "server.sockett"),
        ("[server]\n", "handlers"),
    ],
)
def test_a_bad_configuration_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_text(content)
    assert run(["serve", "--config", str(path)]) == 2
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert words in written


def test_a_daemon_is_not_its_own_upstream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.core.log.configure", lambda level: None)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "config.toml").write_text(
        f"[server]\nsocket = '{tmp_path}/cri.sock'\n[upstream]\nsocket = '{tmp_path}/link/cri.sock'\n"
        "[handlers.runc]\ntype='runc'\npath='/x'\n"
    )
    assert run(["serve", "--config", str(tmp_path / "config.toml")]) == 2
    assert "is the socket that we serve" in capsys.readouterr().err


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit) as caught:
        run(["fly"])
    assert caught.value.code == 2


def test_the_switch_does_without_grpc() -> None:
    """It runs in a unit on which a kubelet waits."""
    script = "import sys, noderuntime.cli; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, env=os.environ).returncode == 0


@pytest.mark.parametrize("library", ["aiohttp", "prometheus_client"])
def test_the_daemon_imports_no_library_that_it_may_never_need(library: str) -> None:
    script = f"import sys, noderuntime.app; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ, check=False).returncode == 0
