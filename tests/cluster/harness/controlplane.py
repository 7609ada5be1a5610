"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler as host processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import processes
from harness.network import API_SERVICE_IP, SERVICE_RANGE, Network
from harness.paths import tool
from harness.pki import Authority, KeyPair, kubeconfig, signing_key
from harness.run import run, wait_for

PORT = 6443
_COMPONENTS = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")


@dataclass(frozen=True)
class ControlPlane:
    """The control plane whose state is in a directory."""

    directory: Path
    network: Network

    @property
    def authority(self) -> Authority:
        """The authority that signs the certificates of the API server and all clients."""
        return Authority.open(self.directory / "pki", "kubernetes")

    @property
    def url(self) -> str:
        """The URL of the API server."""
        return f"https://{self.network.host_ip}:{PORT}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    def up(self) -> None:
        """Start what is not running and wait until the API server is ready."""
        self.up_api()
        self._start("kube-controller-manager", self._controller_manager())
        self._start("kube-scheduler", self._scheduler())

    def up_api(self) -> None:
        """Start etcd and the API server if they are not running, and wait until it is ready."""
        self._write_kubeconfig("admin", "kubernetes-admin", "system:masters")
        self._start("etcd", self._etcd())
        self._start("kube-apiserver", self._apiserver())
        wait_for("API server", self._is_ready, timeout=60)

    def down(self) -> None:
        """Stop all components."""
        for name in _COMPONENTS:
            processes.stop(self.directory, name)

    def running(self) -> list[str]:
        """Return the names of the running components."""
        return [name for name in _COMPONENTS if processes.is_running(self.directory, name)]

    def client_config(self, file: str, user: str, group: str = "") -> str:
        """Return a kubeconfig for a user, whose certificate is signed on the first call."""
        return kubeconfig(self.url, self.authority, self.authority.issue(file, user, group))

    def _start(self, name: str, flags: list[str]) -> None:
        processes.start(self.directory, name, [tool(name), *flags])

    def _is_ready(self) -> bool:
        if not processes.is_running(self.directory, "kube-apiserver"):
            last = (self.directory / "kube-apiserver.log").read_text()[-2000:]
            raise RuntimeError(f"kube-apiserver ended: {last}")
        run(tool("kubectl"), "--kubeconfig", str(self.kubeconfig), "get", "--raw", "/readyz", timeout=10)
        return True

    def _write_kubeconfig(self, file: str, user: str, group: str = "") -> Path:
        path = self.directory / f"{file}.kubeconfig"
        if not path.exists():
            path.write_text(self.client_config(file, user, group))
            path.chmod(0o600)
        return path

    def _etcd_pair(self) -> tuple[Authority, KeyPair]:
        authority = Authority.open(self.directory / "pki", "etcd")
        return authority, authority.issue("etcd", "etcd", names=f"IP:{self.network.host_ip}")

    def _etcd(self) -> list[str]:
        authority, pair = self._etcd_pair()
        client, peer = (f"https://{self.network.host_ip}:{port}" for port in (2379, 2380))
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            f"--cert-file={pair.cert}", f"--key-file={pair.key}",
            f"--peer-cert-file={pair.cert}", f"--peer-key-file={pair.key}",
            f"--trusted-ca-file={authority.pair.cert}", f"--peer-trusted-ca-file={authority.pair.cert}",
            "--client-cert-auth", "--peer-client-cert-auth", "--unsafe-no-fsync",
        ]  # fmt: skip

    def _apiserver(self) -> list[str]:
        etcd_authority, etcd_pair = self._etcd_pair()
        serving = self.authority.issue(
            "kube-apiserver", "kube-apiserver",
            names=f"IP:{self.network.host_ip},IP:{API_SERVICE_IP},DNS:kubernetes.default.svc",
        )  # fmt: skip
        kubelet_client = self.authority.issue("kubelet-client", "kube-apiserver-kubelet", "system:masters")
        tokens = signing_key(self.directory / "pki", "service-accounts")
        return [
            f"--bind-address={self.network.host_ip}", f"--advertise-address={self.network.host_ip}",
            f"--secure-port={PORT}", f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--etcd-servers=https://{self.network.host_ip}:2379",
            f"--etcd-cafile={etcd_authority.pair.cert}",
            f"--etcd-certfile={etcd_pair.cert}", f"--etcd-keyfile={etcd_pair.key}",
            f"--client-ca-file={self.authority.pair.cert}",
            f"--tls-cert-file={serving.cert}", f"--tls-private-key-file={serving.key}",
            f"--kubelet-client-certificate={kubelet_client.cert}",
            f"--kubelet-client-key={kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={tokens.cert}",
            f"--service-account-signing-key-file={tokens.key}",
            "--allow-privileged=true", "--profiling=false",
        ]  # fmt: skip

    def _controller_manager(self) -> list[str]:
        config = self._write_kubeconfig("controller-manager", "system:kube-controller-manager")
        tokens = signing_key(self.directory / "pki", "service-accounts")
        return [
            f"--kubeconfig={config}", f"--bind-address={self.network.host_ip}", "--leader-elect=false",
            f"--root-ca-file={self.authority.pair.cert}",
            f"--service-account-private-key-file={tokens.key}",
            "--use-service-account-credentials", "--profiling=false",
        ]  # fmt: skip

    def _scheduler(self) -> list[str]:
        config = self._write_kubeconfig("scheduler", "system:kube-scheduler")
        return [
            f"--kubeconfig={config}", f"--bind-address={self.network.host_ip}",
            "--leader-elect=false", "--profiling=false",
        ]  # fmt: skip
