"""The command line of ``kubectl noderuntime``: arguments, exit status and start."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kubectl_noderuntime.arguments import parser
from kubectl_noderuntime.cli import COMMANDS, run
from kubectl_noderuntime.complete import candidates

_HELP = """
import sys
from kubectl_noderuntime.cli import run
try:
    run([*sys.argv[1:], "--help"])
except SystemExit as ended:
    assert ended.code == 0
slow = {"aiohttp", "kopf", "kubernetes", "pydantic", "rich", "yaml"} & set(sys.modules)
assert not slow, slow
"""


@pytest.mark.parametrize("command", [[], ["why"], ["rollback"]])
def test_help_loads_no_slow_library(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HELP, *command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: kubectl noderuntime")


@pytest.mark.parametrize(
    "arguments", [["--context", "a", "-n", "b", "why", "web"], ["why", "--context=a", "web", "-nb"]]
)
def test_options_stand_before_or_after_the_command(arguments: list[str]) -> None:
    args = parser().parse_args(arguments)
    assert (args.context, args.namespace, args.kubeconfig, args.pod) == ("a", "b", None, "web")


@pytest.mark.parametrize(
    "arguments", [[], ["stop"], ["why"], ["pause"], ["rollback", "a", "--to", "b", "--cancel"]]
)
def test_wrong_command_line_has_exit_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 2
    assert "kubectl noderuntime" in capsys.readouterr().err


def test_missing_kubeconfig_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "a\x1bb"
    assert run(["--kubeconfig", str(missing), "status"]) == 1
    shown = f"{tmp_path}/a\\x1bb"
    assert capsys.readouterr() == (
        "",
        f"error: no kubeconfig at {shown} (set KUBECONFIG, or give --kubeconfig FILE)\n",
    )


def test_unreachable_api_server_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(
        "current-context: a\n"
        "contexts: [{name: a, context: {cluster: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
    )
    assert run(["--kubeconfig", str(file), "status"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: no answer from the API server http://127.0.0.1:1: ")
    assert err.endswith(" (check --context and the network)\n")


def test_invalid_certificate_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    (tmp_path / "ca").write_text("no certificate")
    file.write_text(
        "current-context: a\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1', certificate-authority: ca}}]\n"
        "users: [{name: a, user: {token: t}}]\n"
    )
    assert run(["--kubeconfig", str(file), "status"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: the kubeconfig has an invalid certificate or key: ")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_server_that_is_no_api_server_ends_with_one_line(
    body: bytes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Print nothing: the client leaves its other requests after the first wrong response."""

    with Server(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        file = tmp_path / "kubeconfig"
        file.write_text(
            "current-context: a\n"
            "contexts: [{name: a, context: {cluster: a}}]\n"
            f"clusters: [{{name: a, cluster: {{server: '{url}'}}}}]\n"
        )
        status = run(["--kubeconfig", str(file), "status"])
        server.shutdown()
    nothing = "no NodeRuntime exists: apply one, for example examples/noderuntime.yaml\n"
    refused = f"error: {url} is no Kubernetes API server (check --context and the kubeconfig)\n"
    shown = capsys.readouterr()
    assert (status, *shown) == ((0, nothing, "") if body == b"{}" else (1, "", refused))


@pytest.mark.parametrize(
    ("before", "known"),
    [
        ([], True),
        (["--context", "a"], True),
        (["stop"], False),
        (["pause", "default"], False),
        (["pause", "--kubeconfig", "/missing"], False),
        (["pause", "--kubeconfig"], False),
    ],
)
def test_completion_offers_commands_first(before: list[str], known: bool) -> None:
    assert list(candidates(before)) == (list(COMMANDS) if known else [])
