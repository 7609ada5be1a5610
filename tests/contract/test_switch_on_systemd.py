"""The switch where it will run: systemd, a real kubelet of every style, our bundle on the node.

One cluster for all of it; each node is removed with everything on it, the cluster at the end.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.node import Node
from harness.nodefiles import EndpointStyle
from harness.run import CommandError, wait_for
from noderuntime.agent import bundle, desired, layout
from noderuntime.agent.instance import InstanceSpec
from noderuntime.agent.layout import Layout
from noderuntime.agent.switch import release
from noderuntime.core import durable_files as files
from story import traces

SOURCE = Path(__file__).resolve().parents[2]
IMAGE = "localhost/noderuntime:contract"
HANDLERS = [{"name": "runc", "type": "Runc"}, {"name": "gvisor", "type": "GVisor"}]
STYLES: tuple[EndpointStyle, ...] = ("FlagsFile", "ConfigFile", "DropIn")
# Kubelets that start on containerd only: one fails at once, the other hangs.
_ON_OURS = "grep -q noderuntime.sock /var/lib/kubelet/kubeadm-flags.env"
REFUSES = f"[Service]\nExecStartPre=/bin/sh -c '! {_ON_OURS}'\n"
HANGS = f"[Service]\nExecStartPre=/bin/sh -c 'if {_ON_OURS}; then sleep 600; fi'\n"


class SwitchNode:
    """A node of the harness with the files that the agent places."""

    def __init__(self, node: Node, source: Path) -> None:
        self.node = node
        self.layout = Layout(node.root)
        self._source = source

    def order(self, **spec: object) -> None:
        """Place the bundle, the units and an order."""
        parsed = InstanceSpec.model_validate({"handlers": HANDLERS, **spec})
        bundle.install(self._source, self.layout, verify=False)
        digest = bundle.digest_of(self._source)
        self.stage(digest, parsed)
        staged = desired.release(digest, desired.daemon_config(parsed, digest))
        if release.load(self.layout).serving is None:
            release.link(self.layout.proven, digest)
            release.link(self.layout.previous, digest)
            release.write_units(self.layout, staged, layout.SWITCH_UNITS)
        self.node.systemctl("daemon-reload")

    def stage(self, digest: str, spec: InstanceSpec, retry: str = "") -> None:
        """Place an order for a version that is on the node."""
        staged = desired.release(digest, desired.daemon_config(spec, digest))
        files.write(self.layout.staged, staged.model_dump_json().encode())
        config = desired.switch_config(spec, digest, retry)
        files.write(self.layout.switch_config, desired.render(config).encode())

    def apply(self) -> None:
        """Run the unit that the agent would start."""
        self.node.systemctl("start", layout.SWITCH, timeout=300)

    def result(self) -> dict[str, object]:
        """Return the switch's report to the agent."""
        found: dict[str, object] = json.loads(self.layout.result.read_text())
        return found

    def pid(self, unit: str) -> str:
        return self.node.systemctl("show", "--property=MainPID,ExecMainStartTimestampMonotonic", unit)

    def kubelet_files(self) -> dict[str, str]:
        names = self.node.exec(
            "sh",
            "-c",
            "ls /var/lib/kubelet/*.yaml /var/lib/kubelet/*.env /etc/kubernetes/kubelet.conf.d/* 2>&1;:",
        ).split()
        return {
            name: self.node.exec("cat", name) for name in names if name.startswith("/") and ":" not in name
        }

    def endpoint(self) -> str:
        """Return the endpoint of the running kubelet, as the switch determines it."""
        said = json.loads(self.node.exec("/opt/noderuntime/proven/bin/noderuntime", "switch", "status"))
        return str(said["kubeletEndpoint"])

    def break_kubelet(self, how: str) -> None:
        directory = self.layout.units / "kubelet.service.d"
        directory.mkdir(exist_ok=True)
        (directory / "refuse.conf").write_text(how)
        self.node.systemctl("daemon-reload")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extract the bundle from the image."""
    target = tmp_path_factory.mktemp("bundle") / "opt"
    for script in (("build.py", "--image", IMAGE), ("export.py", IMAGE, str(target))):
        subprocess.run(
            [sys.executable, str(SOURCE / "image" / script[0]), *script[1:]], check=True, timeout=900
        )
    return (target / "bundle").resolve()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    Cluster("systemd").down()  # what a run that was killed may have left
    with Cluster("systemd") as found:
        yield found
    assert found.leftovers() == []


@contextlib.contextmanager
def booted(cluster: Cluster, style: EndpointStyle, source: Path) -> Iterator[SwitchNode]:
    node = cluster.add_node(style.lower(), style)
    try:
        cluster.kubectl.wait_node_ready(node.name)
        yield SwitchNode(node, source)
    finally:
        cluster.remove_node(node)


@pytest.fixture(params=STYLES)
def each(request: pytest.FixtureRequest, cluster: Cluster, source: Path) -> Iterator[SwitchNode]:
    """A node of each style."""
    with booted(cluster, request.param, source) as found:
        yield found


@pytest.fixture
def node(cluster: Cluster, source: Path) -> Iterator[SwitchNode]:
    """A node as kubeadm makes it."""
    with booted(cluster, "FlagsFile", source) as found:
        yield found


def test_switch_forth_back_and_uninstall(each: SwitchNode) -> None:
    before = each.kubelet_files()
    each.order()
    each.apply()
    assert each.result()["outcome"] == "Switched"
    assert each.endpoint() == layout.ENDPOINT

    processes = [each.pid("kubelet.service"), each.pid(layout.SERVICE)]
    each.apply()
    assert [each.pid("kubelet.service"), each.pid(layout.SERVICE)] == processes

    each.order(state="Removed")
    each.apply()
    assert each.kubelet_files() == before
    assert traces.on_node(each.node) == []


def test_kubelet_that_does_not_recover_is_reverted(node: SwitchNode) -> None:
    before = node.kubelet_files()
    node.order(kubelet={"switchTimeoutSeconds": 10})
    node.break_kubelet(REFUSES)

    with pytest.raises(CommandError):
        node.apply()

    assert node.kubelet_files() == before
    assert node.result()["reason"] == "SwitchReverted"
    assert node.node.systemctl("is-active", "kubelet.service").strip() == "active"


def test_timer_reverts_a_killed_switch(node: SwitchNode) -> None:
    before = node.kubelet_files()
    node.order(kubelet={"switchTimeoutSeconds": 10})
    node.break_kubelet(HANGS)
    node.node.systemctl("start", "--no-block", layout.SWITCH)
    wait_for("a changed file", lambda: node.kubelet_files() != before, timeout=120)
    node.node.systemctl("kill", "--signal=KILL", layout.SWITCH)

    wait_for("the old files", lambda: node.kubelet_files() == before, timeout=60)
    wait_for("the kubelet", lambda: "active" in _state(node, "kubelet.service"), timeout=60)


def test_reboot_in_the_middle_ends_on_the_old_runtime(node: SwitchNode) -> None:
    before = node.kubelet_files()
    node.order(kubelet={"switchTimeoutSeconds": 10})
    node.break_kubelet(HANGS)
    node.node.systemctl("start", "--no-block", layout.SWITCH)
    wait_for("a changed file", lambda: node.kubelet_files() != before, timeout=120)
    node.node.reboot(hard=True)

    wait_for("the old files", lambda: node.kubelet_files() == before, timeout=120)
    wait_for("the kubelet", lambda: "active" in _state(node, "kubelet.service"), timeout=60)


def test_reboot_of_a_switched_node_keeps_the_switch(node: SwitchNode, cluster: Cluster) -> None:
    node.order()
    node.apply()
    node.node.reboot()
    wait_for("the switch at boot", lambda: _has_run(node, layout.SWITCH), timeout=120)
    assert _state(node, "kubelet.service") == "active"
    assert node.endpoint() == layout.ENDPOINT
    assert node.result()["outcome"] == "Switched"
    cluster.kubectl.wait_node_ready(node.node.name)


def _has_run(node: SwitchNode, unit: str) -> bool:
    """Return whether a one-shot unit has ended since boot; before that it is inactive too."""
    ended = node.node.systemctl("show", "--property=ExecMainExitTimestampMonotonic", "--value", unit)
    return ended.strip() not in ("", "0") and _state(node, unit) == "inactive"


def _state(node: SwitchNode, unit: str) -> str:
    return node.node.systemctl("show", "--property=ActiveState", "--value", unit).strip().split("\n")[-1]
