"""etcd, kube-apiserver and kube-controller-manager on loopback, with RBAC and a static admin token."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BIN = Path(os.environ.get("NODERUNTIME_CACHE", Path.home() / ".cache/noderuntime")) / "bin"
ADMIN_TOKEN = "admin"
# The nodes have no kubelet, so controllers that depend on their heartbeats are not started.
CONTROLLERS = (
    "daemonset-controller,garbage-collector-controller,serviceaccount-controller,"
    "root-ca-certificate-publisher-controller,validatingadmissionpolicy-status-controller,"
    "clusterrole-aggregation-controller"
)


def tool(name: str) -> str:
    """Return the path of a program; fail the test with its name if it is missing."""
    found = shutil.which(name, path=f"{BIN}:{os.environ['PATH']}")
    assert found, f"{name} is neither in {BIN} nor on PATH"
    return found


class Program:
    """A process that can be started again; its log is beside its data."""

    def __init__(self, directory: Path, *command: str) -> None:
        self._directory = directory
        self._command = command
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        log = self._directory / f"{Path(self._command[0]).name}.log"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                self._command, stdout=sink, stderr=subprocess.STDOUT, cwd=self._directory
            )

    def stop(self) -> None:
        stop(self._process)


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    url: str
    directory: Path
    kubeconfig: Path
    etcd_url: str
    apiserver: Program

    def start_apiserver(self) -> None:
        """Start the API server, and wait until it is ready."""
        self.apiserver.start()
        eventually(
            lambda: self.kubectl("get", "--raw=/readyz", check=False) == "ok", "kube-apiserver is not ready"
        )

    def compact(self) -> None:
        """Make etcd forget all revisions but the last: watches from older ones are answered with 410."""
        found = self._etcd("range", {"key": "AA==", "limit": 1})
        self._etcd("compaction", {"revision": found["header"]["revision"], "physical": True})

    def _etcd(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(request).encode()
        with urllib.request.urlopen(f"{self.etcd_url}/v3/kv/{verb}", data) as answer:
            return dict(json.load(answer))

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as admin and return its output; with check=False return its error on failure."""
        done = subprocess.run(
            [tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *args],
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"kubectl {' '.join(args)}: {done.stderr}"
        return done.stdout if done.returncode == 0 else done.stderr

    def apply(self, *objects: dict[str, Any], check: bool = True) -> str:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects), check=check)

    def get(self, kind: str, name: str = "", *args: str) -> dict[str, Any]:
        """Return the object or the list; an empty dict if it does not exist."""
        answer = self.kubectl(
            "get", kind, *([name] if name else []), "-o", "json", "--ignore-not-found", *args
        )
        return dict(json.loads(answer)) if answer else {}

    def patch_status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)

    def raw(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Send a request with this bearer token; return the HTTP status and the response."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header(
            "Content-Type", "application/merge-patch+json" if method == "PATCH" else "application/json"
        )
        context = ssl.create_default_context(cafile=str(self.directory / "pki/apiserver.crt"))
        data = json.dumps(body).encode() if body is not None else None
        try:
            with urllib.request.urlopen(request, data, context=context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def running(directory: Path) -> Iterator[ControlPlane]:
    """Run a control plane with its files in directory; stop it when the block ends."""
    with contextlib.ExitStack() as stack:
        etcd_url = _start_etcd(stack, directory)
        port = free_port()
        apiserver = _apiserver(directory, etcd_url, port)
        plane = ControlPlane(
            f"https://127.0.0.1:{port}", directory, directory / "admin.kubeconfig", etcd_url, apiserver
        )
        _write_kubeconfig(plane)
        stack.callback(apiserver.stop)
        plane.start_apiserver()
        _run(
            stack,
            directory,
            tool("kube-controller-manager"),
            f"--kubeconfig={plane.kubeconfig}",
            "--leader-elect=false",
            f"--controllers={CONTROLLERS}",
            "--secure-port=0",
        )
        eventually(
            lambda: plane.get("serviceaccount", "default"),
            "no default ServiceAccount: the controllers do not run",
        )
        yield plane


def _start_etcd(stack: contextlib.ExitStack, directory: Path) -> str:
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    _run(
        stack,
        directory,
        tool("etcd"),
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        "--unsafe-no-fsync",
    )
    return client


def _apiserver(directory: Path, etcd_url: str, port: int) -> Program:
    (directory / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
    key = directory / "sa.key"
    subprocess.run([tool("openssl"), "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    return Program(
        directory,
        tool("kube-apiserver"),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'pki'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.250.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--allow-privileged=true",
    )


def _write_kubeconfig(plane: ControlPlane) -> None:
    plane.kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [
                    {
                        "name": "test",
                        "cluster": {
                            "server": plane.url,
                            "certificate-authority": str(plane.directory / "pki/apiserver.crt"),
                        },
                    }
                ],
                "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            }
        )
    )


def _run(stack: contextlib.ExitStack, directory: Path, *command: str) -> None:
    """Start a process that the stack stops."""
    program = Program(directory, *command)
    program.start()
    stack.callback(program.stop)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def eventually(condition: Callable[[], Any], failure: str, seconds: float = 60) -> None:
    """Wait until the condition is true; failure is the message if it does not become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.2)
