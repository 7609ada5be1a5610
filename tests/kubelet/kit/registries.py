"""A registry that requires a password: the cluster's images, with TLS on another port."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness import processes
from harness.cluster import Cluster
from harness.kubectl import Manifest
from harness.node import Node
from harness.paths import tool
from harness.registry import STORAGE
from harness.run import run, wait_for

PORT = 5001
USER, PASSWORD = "puller", "let-me-in"
_HTPASSWD = f"{USER}:$2b$04$7F8dIcrCzR94bQfsXGb4yuFR5Y3aRJUZAf1VvAxdctJUlvkIWupJG\n"
_CA = "/etc/kubernetes/pki/ca.crt"


@dataclass(frozen=True)
class Closed:
    """The registry, by its address in image references."""

    address: str

    def image(self, name: str) -> str:
        """Return the reference of an image in the registry."""
        return f"{self.address}/{name}"

    def secret(self, name: str, password: str = PASSWORD) -> Manifest:
        """Return the Secret that ``kubectl create secret docker-registry`` would create."""
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        config = {"auths": {self.address: {"username": USER, "password": password, "auth": auth}}}
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps(config)},
        }  # fmt: skip


@contextmanager
def closed_registry(cluster: Cluster, node: Node) -> Iterator[Closed]:
    """Run the registry, and make the node trust its certificate."""
    closed = Closed(f"{cluster.network.host_ip}:{PORT}")
    directory = cluster.directory / "closed"
    directory.mkdir()
    (directory / "htpasswd").write_text(_HTPASSWD)
    pair = cluster.control.authority.issue("registry", "registry", names=f"IP:{cluster.network.host_ip}")
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(STORAGE)}},
        "http": {"addr": closed.address, "tls": {"certificate": str(pair.cert), "key": str(pair.key)}},
        "auth": {"htpasswd": {"realm": "closed", "path": str(directory / "htpasswd")}},
    }
    file = directory / "registry.yml"
    file.write_text(json.dumps(config))
    only_there(node, closed.address, f'server = "https://{closed.address}"\nca = "{_CA}"\n')
    processes.start(directory, "registry", [tool("docker-registry"), "serve", str(file)])
    try:
        wait_for("closed registry", lambda: _wants_password(closed.address), timeout=20)
        yield closed
    finally:
        processes.stop(directory, "registry")


def only_there(node: Node, registry: str, hosts: str) -> None:
    """Write a hosts.toml for a registry that is not mirrored, into the node."""
    directory = f"/etc/noderuntime/certs.d/{registry}"
    node.exec("mkdir", "-p", directory)
    node.exec("sh", "-c", f"cat > '{directory}/hosts.toml'", stdin=hosts)


def _wants_password(address: str) -> bool:
    code = run("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"https://{address}/v2/")
    return code == "401"
