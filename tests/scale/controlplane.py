"""etcd and kube-apiserver on a loopback address of their own, which end with this process."""

from __future__ import annotations

import ipaddress
import json
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from harness import processes
from harness.controlplane import ControlPlane
from harness.network import Network
from harness.paths import tool
from scale.subprocesses import cpu_seconds, ending_with_parent

OPERATOR = "system:serviceaccount:noderuntime-system:noderuntime-operator"
_ETCD_PORT = 2379


class Loopback(Network):
    """Addresses of one run: a subnet of 127.0.0.0/8 needs no bridge and no root."""

    @property
    def host_ip(self) -> str:
        """The address on which etcd and the API server listen."""
        return str(ipaddress.ip_address(0x7F010001 + (self.index << 8)))


@dataclass(frozen=True)
class AuditedControlPlane(ControlPlane):
    """A control plane without controllers and scheduler; requests of the operator are in an audit log."""

    @property
    def audit_log(self) -> Path:
        """The file with a line for each request of the operator."""
        return self.directory / "audit.log"

    def up(self) -> None:
        """Start etcd and the API server, and wait until it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "audit.yaml").write_text(json.dumps(_AUDIT))
        self.up_api()

    def restart_apiserver(self) -> None:
        """Stop the API server, and start it with an empty watch cache."""
        self.stop_apiserver()
        self.up_api()

    def stop_apiserver(self) -> None:
        """Stop the API server without waiting for the watches of its clients."""
        processes.stop(self.directory, "kube-apiserver", timeout=2)

    def cpu(self) -> float:
        """Return the CPU time of etcd and the API server in seconds."""
        records = (json.loads(file.read_text()) for file in self.directory.glob("*.json"))
        return sum(cpu_seconds(record["pid"]) for record in records)

    def compact(self) -> None:
        """Make etcd forget all revisions but the last: watches from older ones are answered with 410."""
        found = self._etcd_call("range", {"key": "AA==", "limit": 1})
        self._etcd_call("compaction", {"revision": found["header"]["revision"], "physical": True})

    def _etcd_call(self, verb: str, request: dict[str, object]) -> dict[str, dict[str, str]]:
        authority, pair = self._etcd_pair()
        tls = ssl.create_default_context(cafile=authority.pair.cert)
        tls.load_cert_chain(pair.cert, pair.key)
        url = f"https://{self.network.host_ip}:{_ETCD_PORT}/v3/kv/{verb}"
        with urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(request).encode()), context=tls, timeout=60
        ) as answer:
            found: dict[str, dict[str, str]] = json.load(answer)
        return found

    def _start(self, name: str, flags: list[str]) -> None:
        # Less frequent garbage collection: the processor is for the operator, memory is plenty.
        argv = ["env", "GOGC=300", tool(name), *flags]
        processes.start(self.directory, name, ending_with_parent(argv))

    def _apiserver(self) -> list[str]:
        return [
            *super()._apiserver(),
            f"--audit-policy-file={self.directory / 'audit.yaml'}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=blocking",
            "--endpoint-reconciler-type=none",
        ]


_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}],
}
