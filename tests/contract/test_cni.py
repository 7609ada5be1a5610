"""The real bridge, host-local and portmap plugins.

The "node" is a network namespace of the test's own: bridge, masquerade and
port rules never touch the machine's, and are gone with it.
"""

import json
import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from noderuntime.core.blocking import apart
from noderuntime.core.errors import ToolError
from noderuntime.core.ids import new_id
from noderuntime.core.paths import Paths
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host import syscalls
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.network.base import Attachment
from noderuntime.node.network.cni import CniNetwork

BIN = Path(os.environ.get("NODERUNTIME_CACHE", Path.home() / ".cache/noderuntime")) / "bin"
BRIDGE = "nrtest0"
HOST_PORT = 18080


class NodeInNamespace(LinuxHost):
    """A host whose programs run in another network namespace."""

    def __init__(self, netns: Path) -> None:
        super().__init__()
        self.netns = netns
        self.seconds: list[float] = []

    async def run(self, argv, **options):
        begin = time.perf_counter()
        try:
            return await super().run(["nsenter", f"--net={self.netns}", *argv], **options)
        finally:
            self.seconds.append(time.perf_counter() - begin)


class Setup:
    def __init__(self, area: Path) -> None:
        self.leases, self.conf_dir = area / "leases", area / "net.d"
        self.host = NodeInNamespace(area / "node-netns")
        self.paths = Paths(area / "run")
        self.network = CniNetwork(self.host, self.conf_dir, [BIN], self.paths)
        self.pins: list[Path] = [area / "node-netns"]
        self.area = area

    async def pod_netns(self, name: str) -> Path:
        pin = self.area / name
        self.pins.append(pin)
        await self.host.pin_namespaces({"net": pin})
        return pin

    def configure(self, version: str = "1.0.0", ipam: str = "host-local") -> None:
        """Write the network's configuration."""
        ranges = [[{"subnet": "10.213.0.0/29"}]]
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {"type": ipam, "dataDir": str(self.leases), "ranges": ranges},
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        (self.conf_dir / "10-test.conflist").write_text(
            json.dumps({"name": "test", "cniVersion": version, "plugins": [bridge, portmap]})
        )

    def sandbox(self) -> str:
        """Make a sandbox's directory, which its plugins lock, and return the sandbox's ID."""
        sandbox = new_id()
        self.paths.sandbox(sandbox).dir.mkdir(parents=True)
        return sandbox

    async def attach(self, sandbox: str, netns: Path, pod: api_pb2.PodSandboxConfig) -> Attachment:
        return await self.network.attach(sandbox, str(netns), pod, await self.network.configuration())

    def on_node(self, *command: str) -> str:
        return self.inside(self.host.netns, *command)

    def inside(self, netns: Path, *command: str) -> str:
        argv = ["nsenter", f"--net={netns}", *command]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def leased(self) -> list[str]:
        return sorted(path.name for path in self.leases.glob("*/10.*"))


@pytest.fixture
async def setup(tmp_path):
    for tool in ("bridge", "host-local", "portmap"):
        assert (BIN / tool).exists(), f"{BIN / tool} is missing"
    setup = Setup(tmp_path)
    await setup.host.pin_namespaces({"net": setup.host.netns}, sysctls={"net.ipv4.ip_forward": "1"})
    setup.conf_dir.mkdir()
    setup.configure()
    yield setup
    await setup.host.unpin_namespaces(setup.pins)
    assert setup.leased() == [], "an address is still leased"
    assert not any(pin.exists() for pin in setup.pins), "a namespace is still pinned"
    assert not (Path("/sys/class/net") / BRIDGE).exists(), "the test reached the machine's own network"


@pytest.fixture
def pod():
    return api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="u-1"),
        port_mappings=[api_pb2.PortMapping(container_port=80, host_port=HOST_PORT)],
    )


@contextmanager
def entered(netns: Path):
    """A thread of the caller's own in the namespace."""
    with netns.open("rb") as handle:
        syscalls.setns(handle.fileno(), syscalls.CLONE_NEWNET)
    yield


def listen(netns: Path) -> socket.socket:
    with entered(netns):
        server = socket.create_server(("0.0.0.0", 80))
        server.settimeout(10)
        return server


def connect(netns: Path, address: tuple[str, int]) -> socket.socket:
    with entered(netns):
        return socket.create_connection(address, timeout=10)


async def test_a_pod_gets_address_and_host_port_and_leaves_nothing(setup, pod):
    netns, sandbox = await setup.pod_netns("pod"), setup.sandbox()
    attachment = await setup.attach(sandbox, netns, pod)
    [address] = attachment.ips
    assert setup.leased() == [address]
    assert address in setup.inside(netns, "ip", "-4", "addr", "show", "eth0")
    assert "default via 10.213.0.1" in setup.inside(netns, "ip", "route")

    server = await apart(lambda: listen(netns), what="listen")
    for target in ((address, 80), ("10.213.0.1", HOST_PORT)):
        client = await apart(lambda target=target: connect(setup.host.netns, target), what="connect")
        accepted, _ = await apart(server.accept, what="accept")
        accepted.close()
        client.close()
    server.close()

    assert sandbox in setup.on_node("iptables-save")
    await setup.network.detach(sandbox, str(netns), pod, attachment.result)
    rules = setup.on_node("iptables-save")
    assert sandbox not in rules
    assert str(HOST_PORT) not in rules
    assert address not in rules
    assert setup.leased() == []
    assert "eth0" not in setup.inside(netns, "ip", "link")
    assert "veth" not in setup.on_node("ip", "link")


async def test_a_pod_without_its_addresses_leaves_no_masquerading(setup, pod):
    """gVisor takes them off the interface and answers for them itself; any pod with NET_ADMIN could."""
    netns, sandbox = await setup.pod_netns("pod"), setup.sandbox()
    attachment = await setup.attach(sandbox, netns, pod)
    setup.inside(netns, "ip", "address", "flush", "dev", "eth0")
    await setup.network.detach(sandbox, str(netns), pod, attachment.result)
    assert sandbox not in setup.on_node("iptables-save")
    assert setup.leased() == []


async def test_del_is_idempotent_and_needs_neither_namespace_nor_result(setup, pod):
    netns, sandbox = await setup.pod_netns("pod"), setup.sandbox()
    attachment = await setup.attach(sandbox, netns, pod)
    await setup.host.unpin_namespaces([netns])
    await setup.network.detach(sandbox, str(netns), pod, b"")
    assert setup.leased() == []
    # The bridge plugin reads the addresses for its masquerade rule from the namespace and leaves it;
    # what other plugins know by the sandbox's ID is gone.
    assert str(HOST_PORT) not in setup.on_node("iptables-save")
    await setup.network.detach(sandbox, str(netns), pod, attachment.result)
    await setup.network.detach(new_id(), "", pod, b"")


async def test_an_exhausted_range_is_one_line_and_leaves_nothing(setup, pod):
    pod.ClearField("port_mappings")
    attached = []
    for number in range(5):
        netns, sandbox = await setup.pod_netns(f"pod-{number}"), setup.sandbox()
        attached.append((sandbox, str(netns), pod, (await setup.attach(sandbox, netns, pod)).result))
    unlucky = await setup.pod_netns("unlucky")
    with pytest.raises(ToolError, match="no IP addresses available") as caught:
        await setup.attach(setup.sandbox(), unlucky, pod)
    assert "\n" not in str(caught.value)
    assert "eth0" not in setup.inside(unlucky, "ip", "link")
    for one in attached:
        await setup.network.detach(*one)


async def test_overhead_over_the_plugins_own_time(setup, pod, capsys):
    """Printed, not asserted: the machine is shared."""
    added, removed = [], []
    for number in range(5):
        netns, sandbox = await setup.pod_netns(f"pod-{number}"), setup.sandbox()
        setup.host.seconds.clear()
        begin = time.perf_counter()
        attachment = await setup.attach(sandbox, netns, pod)
        added.append((time.perf_counter() - begin, sum(setup.host.seconds)))
        setup.host.seconds.clear()
        begin = time.perf_counter()
        await setup.network.detach(sandbox, str(netns), pod, attachment.result)
        removed.append((time.perf_counter() - begin, sum(setup.host.seconds)))
    with capsys.disabled():
        for name, times in (("ADD", added), ("DEL", removed)):
            total, plugins = sorted(times)[len(times) // 2]
            print(f" CNI {name}: {total * 1e3:.1f} ms, of it plugins {plugins * 1e3:.1f} ms ", end="")


async def test_status_of_the_reference_plugins_includes_ipam(setup):
    setup.configure("1.1.0")
    assert await setup.network.ready() == (True, "")
    setup.configure("1.1.0", ipam="no-such-ipam")
    ready, reason = await setup.network.ready()
    assert not ready
    assert reason.startswith("CNI plugin bridge STATUS failed with exit status 1: ")
    assert "no-such-ipam" in reason


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
async def test_gc_spares_valid_attachments(setup, pod, version):
    setup.configure(version)
    netns, sandbox = await setup.pod_netns("pod"), setup.sandbox()
    attachment = await setup.attach(sandbox, netns, pod)
    rules = setup.on_node("iptables-save", "-t", "nat").count(sandbox)
    await setup.network.collect_garbage(lambda: {sandbox: attachment.result})
    assert setup.leased() == list(attachment.ips)
    assert setup.on_node("iptables-save", "-t", "nat").count(sandbox) == rules > 0
    await setup.network.detach(sandbox, str(netns), pod, attachment.result)
