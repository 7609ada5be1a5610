"""The daemon and its network plugins: STATUS, GC, and an ADD that outlives the daemon."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Alone, Daemon
from realnode.pods import Kubelet, wait_until
from realnode.tools import tool
from realnode.traces import remove_cgroups, traces

from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.process import identify

_RELAY = """\
#!/bin/sh
# The bridge plugin, with a record of its calls, and with faults for which there is a file.
cd "$(dirname "$0")"
[ $CNI_COMMAND != GC ] || { cat > gc.new; mv gc.new gc.json; }
echo "$CNI_COMMAND $$ $CNI_CONTAINERID" >> calls
case $CNI_COMMAND in
STATUS) [ ! -e sick ] || { echo '{"code": 50, "msg": "agent is away"}'; exit 1; } ;;
GC) exit 0 ;;
ADD) [ ! -e result.json ] || exec cat result.json
    [ ! -e slow ] || { {bridge} > /dev/null; touch hangs; exec sleep 60; } ;;
esac
exec {bridge}
"""


@dataclass
class Site:
    """A daemon without another runtime, and its plugin."""

    daemon: Daemon
    area: Path

    def calls(self, command: str) -> list[list[str]]:
        """Return PID and container ID of each call of a command."""
        record = self.area / "bin/calls"
        lines = record.read_text().splitlines() if record.exists() else []
        return [line.split(" ")[1:] for line in lines if line.startswith(f"{command} ")]

    def say(self, interfaces: list[dict[str, str]], *ips: tuple[int, str]) -> None:
        """Have the plugin return a result without doing anything; ``ips`` with indexes of interfaces."""
        entries = [{"interface": index, "address": address} for index, address in ips]
        result = {"cniVersion": "1.1.0", "interfaces": interfaces, "ips": entries}
        (self.area / "bin/result.json").write_text(json.dumps(result))

    def leases(self) -> list[str]:
        return [path.name for path in (self.area / "ipam").glob("*/10.*")]

    def valid(self) -> list[str]:
        """Return the container IDs that the last GC was given."""
        content = json.loads((self.area / "bin/gc.json").read_text())
        return [one["containerID"] for one in content["cni.dev/valid-attachments"]]


@pytest.fixture
def site() -> Iterator[Site]:
    area, token = Path(tempfile.mkdtemp(prefix="noderuntime-plugins-")), secrets.randbelow(200)
    ipam = {
        "type": "host-local",
        "dataDir": str(area / "ipam"),
        "ranges": [[{"subnet": f"10.{token}.78.0/24"}]],
    }
    chain = {
        "cniVersion": "1.1.0",
        "name": "relayed",
        "plugins": [{"type": "relay", "bridge": f"nrpl{token}", "ipam": ipam}],
    }
    for name in ("bin", "net.d"):
        (area / name).mkdir()
    (area / "net.d/10-relayed.conflist").write_text(json.dumps(chain))
    (area / "bin/relay").write_text(_RELAY.replace("{bridge}", str(tool("bridge"))))
    (area / "bin/relay").chmod(0o755)
    daemon = Daemon(
        Path(tempfile.mkdtemp(prefix="nrpl-", dir="/run")),
        area / "daemon",
        Alone(area / "net.d", area / "certs"),
    )
    (daemon.config.parent / "conf.d").mkdir()
    dirs = json.dumps([str(area / "bin"), str(tool("bridge").parent)])
    (daemon.config.parent / "conf.d/plugins.toml").write_text(f"[network]\nplugin_dirs = {dirs}\n")
    try:
        daemon.start()
        yield Site(daemon, area)
    finally:
        daemon.remove()
        shutil.rmtree(area)
        bridge = Path(f"/sys/class/net/nrpl{token}")
        if bridge.exists():
            subprocess.run(["ip", "link", "delete", bridge.name], check=True)


@pytest.fixture
def kubelet(site: Site, tmp_path: Path) -> Iterator[Kubelet]:
    parent = f"/noderuntime-plugins-{uuid.uuid4().hex[:8]}"
    client = Kubelet(site.daemon.socket, tmp_path, parent)
    yield client
    for pod in client.pods():
        client.stop_and_remove(pod)
    client.channel.close()
    left = traces(site.daemon.run, parent, daemon=site.daemon.pid)
    remove_cgroups(parent)
    assert left == []
    assert site.leases() == []


def _network_ready(kubelet: Kubelet) -> tuple[bool, str, str]:
    status = kubelet.node_status().status
    [condition] = [one for one in status.conditions if one.type == "NetworkReady"]
    return condition.status, condition.reason, condition.message


def test_network_ready_follows_status_of_the_plugins(site: Site, kubelet: Kubelet) -> None:
    assert _network_ready(kubelet) == (True, "", "")
    (site.area / "bin/sick").touch()
    wait_until(lambda: not _network_ready(kubelet)[0], "STATUS is asked again", seconds=30)
    assert _network_ready(kubelet)[1:] == (
        "NetworkPluginNotReady",
        "CNI plugin relay STATUS failed with exit status 1: agent is away"
        " (CNI error 50: the plugin cannot serve ADD)",
    )
    (site.area / "bin/sick").unlink()
    wait_until(lambda: _network_ready(kubelet)[0], "STATUS is asked again", seconds=30)


def test_gc_after_a_restart_keeps_the_pods_that_run(site: Site, kubelet: Kubelet) -> None:
    wait_until(lambda: len(site.calls("GC")) == 1, "GC after the start")
    assert site.valid() == []
    pod = kubelet.run(kubelet.pod_config(), "runc")
    site.daemon.kill()
    site.daemon.start()
    wait_until(lambda: len(site.calls("GC")) == 2 and site.valid() == [pod], "GC after the restart")
    assert site.calls("DEL") == []


def test_killed_daemons_add_ends_before_its_lease_is_released(site: Site, kubelet: Kubelet) -> None:
    wait_until(lambda: len(site.calls("GC")) == 1, "GC after the start")
    (site.area / "bin/slow").touch()

    def run() -> None:
        with suppress(grpc.RpcError):
            kubelet.run(kubelet.pod_config(), "runc")

    caller = threading.Thread(target=run)
    caller.start()
    wait_until((site.area / "bin/hangs").exists, "ADD has taken an address")
    [[pid, sandbox]] = site.calls("ADD")
    plugin = identify(int(pid))
    assert plugin is not None
    assert len(site.leases()) == 1
    site.daemon.kill()
    caller.join()
    assert identify(int(pid)) == plugin, "the plugin outlives the daemon"
    (site.area / "bin/slow").unlink()
    site.daemon.start()
    wait_until(lambda: site.leases() == [], "the address is given back")
    assert identify(int(pid)) is None
    assert sandbox in [called for _, called in site.calls("DEL")]
    wait_until(lambda: len(site.calls("GC")) == 2 and site.valid() == [], "GC after DEL")


def test_pod_has_the_addresses_that_containerd_reads(site: Site, kubelet: Kubelet) -> None:
    site.say([{"name": "host0"}, {"name": "eth0"}], (0, "10.9.0.1/24"), (1, "fd00::2/64"), (1, "10.9.0.2/24"))
    pod = kubelet.run(kubelet.pod_config(), "runc")
    request = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)
    network = kubelet.runtime.PodSandboxStatus(request, timeout=30).status.network
    assert (network.ip, [one.ip for one in network.additional_ips]) == ("10.9.0.2", ["fd00::2"])


@pytest.mark.parametrize("index", [-1, 1])
def test_address_of_an_unknown_interface_is_refused(site: Site, kubelet: Kubelet, index: int) -> None:
    """containerd panics if the index is the number of interfaces."""
    site.say([{"name": "eth0"}], (index, "10.9.0.2/24"))
    with pytest.raises(grpc.RpcError) as failed:
        kubelet.run(kubelet.pod_config(), "runc")
    why = f"address 10.9.0.2/24 is on interface {index}, but the result has 1 of them"
    assert why in str(failed.value.details())
    assert site.calls("DEL")
    assert kubelet.pods() == set()
