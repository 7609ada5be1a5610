"""The switch dies, or the node loses power, before every step of an upgrade: one version serves, whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_switch_on_systemd import cluster, source
from test_upgrade_on_systemd import GOOD, SPEC, Versions

from harness.cluster import Cluster
from harness.run import wait_for
from noderuntime.agent import layout
from noderuntime.agent.switch import release, upgrade_steps

__all__ = ["cluster", "source"]  # fixtures

STEPS = [step.__name__ for step in upgrade_steps.UPGRADE]
DROP_IN = "noderuntime-switch.service.d/failpoint.conf"
SCRIPT = "/etc/noderuntime-failpoint.py"
FAILPOINT = """\
import functools, os, signal, sys, time
from pathlib import Path
from noderuntime.agent import switch_cli

def on_step(name):
    if name == sys.argv[1]:
        Path("/etc/failpoint").touch()
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

switch_cli.Context = functools.partial(switch_cli.Context, on_step=on_step)
switch_cli.run_switch(["apply"])
"""
SECONDS = 90


class Failing(Versions):
    """A node with two versions that work, whose switch can be ended before a step."""

    def fail_at(self, step: str, how: str) -> None:
        """End the next run of the switch before a step: by SIGKILL, or in a sleep."""
        self.node.exec("rm", "-f", "/etc/failpoint")
        path = self.layout.units / DROP_IN
        path.parent.mkdir(exist_ok=True)
        command = f"/opt/noderuntime/proven/bin/python3 -I {SCRIPT} {step} {how}"
        path.write_text(f"[Service]\nExecStart=\nExecStart={command}\n")
        self.node.systemctl("daemon-reload")
        # An interrupted version is tried again on request only.
        self.stage(self.first if self.running() == GOOD else GOOD, SPEC, retry=f"{step} {how}")
        self.node.systemctl("start", "--no-block", layout.SWITCH)
        wait_for(f"step {step}", lambda: self.layout.at("/etc/failpoint").exists(), timeout=60, every=0.05)
        path.unlink()

    def check_one_version_serves(self) -> None:
        """Wait until nothing is under way, and check that one version serves the kubelet, whole."""
        wait_for("the end of the upgrade", lambda: not self.is_upgrading() and self.serves(), timeout=SECONDS)
        wait_for("the end of the switch", lambda: not self.is_busy(), timeout=SECONDS)
        known = release.load(self.layout).serving
        assert known
        assert known.digest == self.running() == self.version_of_daemon()
        assert Path(self.node.exec("readlink", "/opt/noderuntime/proven").strip()).name == known.digest
        assert release.is_installed(self.layout, known)
        wait_for("the kubelet", lambda: self.endpoint() == layout.ENDPOINT, timeout=SECONDS)

    def is_busy(self) -> bool:
        units = (layout.SWITCH, layout.REVERT, layout.RESUME)
        return any(self.state(unit) == "activating" for unit in units)


@pytest.fixture(scope="module")
def node(cluster: Cluster, source: Path) -> Iterator[Failing]:
    with Failing.booted(cluster, source) as found:
        found.layout.at(SCRIPT).write_text(FAILPOINT)
        yield found


@pytest.mark.parametrize("step", STEPS)
def test_killed_switch_leaves_one_version(node: Failing, cluster: Cluster, step: str) -> None:
    before, began = node.running(), time.monotonic()
    node.fail_at(step, "kill")
    node.check_one_version_serves()
    print(f"killed before {step}: {time.monotonic() - began:.0f} s")
    recorded = STEPS.index(step) > STEPS.index("record")
    assert (node.running() != before) is recorded
    cluster.kubectl.wait_node_ready(node.node.name)


@pytest.mark.parametrize("step", ["write_config", "start", "record"])
def test_power_cut_in_an_upgrade_leaves_one_version(node: Failing, cluster: Cluster, step: str) -> None:
    node.fail_at(step, "sleep")
    node.node.reboot(hard=True)
    began = time.monotonic()
    node.check_one_version_serves()
    print(f"power cut before {step}: {time.monotonic() - began:.0f} s after the boot")
    cluster.kubectl.wait_node_ready(node.node.name)
