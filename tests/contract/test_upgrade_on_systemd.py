"""Upgrades where they will run: systemd, a real kubelet, versions that are broken in different ways."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from test_switch_on_systemd import HANDLERS, SwitchNode, booted, cluster, source

from harness.cluster import Cluster
from harness.run import wait_for
from harness.versions import CANARY_FAILS, EXITS, HANGS, REFUSES_LOG_LEVEL, Edits, other_version
from noderuntime.agent import layout
from noderuntime.agent.instance import InstanceSpec
from story import cri

__all__ = ["cluster", "source"]  # fixtures

SPEC = InstanceSpec.model_validate({"handlers": HANDLERS})
GOOD = "1" * 16
BAD: dict[str, tuple[str, Edits]] = {
    "2" * 16: (r"does not start: .*the ledger is upside down", EXITS),
    "3" * 16: (r"was not ready 12 s after its start", HANGS),
    "4" * 16: (r"was not started: .*log\.level", REFUSES_LOG_LEVEL),
    "5" * 16: (r"handlers that worked before fail: gvisor: .*only knows its version", CANARY_FAILS),
}
MOST_SECONDS_WITHOUT_SOCKET = 20.0
"""A kubelet is NotReady 30 s after the last status that it read, and reads one every 5 s."""


class Versions(SwitchNode):
    """A node that serves, and other versions of the bundle."""

    first: str

    @classmethod
    @contextlib.contextmanager
    def booted(cls, cluster: Cluster, source: Path) -> Iterator[Self]:
        """Boot a node that the first version serves, with a version that works beside it."""
        with booted(cluster, "FlagsFile", source) as found:
            node = cls(found.node, source)
            node.order()
            node.apply()
            node.first = node.running()
            other_version(source, node.layout.versions, GOOD, {})
            yield node

    def running(self) -> str:
        return Path(self.node.exec("readlink", "/opt/noderuntime/current").strip()).name

    def version_of_daemon(self) -> str:
        """Return the digest in the path of the running daemon's program."""
        pid = self.node.systemctl("show", "-P", "MainPID", layout.SERVICE).strip()
        return Path(self.node.exec("readlink", f"/proc/{pid}/exe").strip()).parents[1].name

    def upgrade(self, digest: str) -> float:
        """Stage a version, run the switch; return the longest time without a socket in seconds."""
        self.stage(digest, SPEC)
        self.node.systemctl("start", "--no-block", layout.SWITCH)
        with cri.watched(self.node, cri.NODERUNTIME) as without_socket:
            wait_for("the end", lambda: self.state(layout.SWITCH) != "activating", timeout=150)
            return without_socket()

    def is_upgrading(self) -> bool:
        return (self.layout.state / "switch/upgrade/journal.json").exists()

    def serves(self) -> bool:
        try:
            with cri.connect(self.node, cri.NODERUNTIME) as runtime:
                return cri.version(runtime) == "noderuntime"
        except Exception:
            return False

    def state(self, unit: str) -> str:
        return self.node.systemctl("show", "-P", "ActiveState", unit).strip()


@pytest.fixture(scope="module")
def node(cluster: Cluster, source: Path) -> Iterator[Versions]:
    with Versions.booted(cluster, source) as found:
        yield found


@pytest.mark.parametrize("digest", BAD)
def test_bad_version_is_rolled_back_in_time(
    node: Versions, cluster: Cluster, source: Path, digest: str
) -> None:
    message, edits = BAD[digest]
    other_version(source, node.layout.versions, digest, edits)
    drop_in = node.layout.etc / "conf.d/50-log.toml"
    drop_in.write_text('[log]\nlevel = "info"\n')
    kubelet = node.pid("kubelet.service")

    seconds = node.upgrade(digest)

    print(f"bad version {digest[0]}: {seconds:.1f} s without a socket")
    assert re.search(message, str(node.result()["message"])), node.result()
    assert seconds < MOST_SECONDS_WITHOUT_SOCKET
    assert node.version_of_daemon() == node.running() == node.first
    assert node.pid("kubelet.service") == kubelet
    assert node.endpoint() == layout.ENDPOINT
    ready = cluster.kubectl.get("node", node.node.name)["status"]["conditions"]
    assert [one["status"] for one in ready if one["type"] == "Ready"] == ["True"]


def test_good_version_serves_and_the_old_one_comes_back(node: Versions) -> None:
    kubelet = node.pid("kubelet.service")
    seconds = node.upgrade(GOOD)
    print(f"good version: {seconds:.1f} s without a socket")
    assert node.result()["outcome"] == "Switched", node.result()
    assert node.version_of_daemon() == node.running() == GOOD
    assert node.pid("kubelet.service") == kubelet
    assert 0.1 < seconds < 5, "or no restart was observed"


def test_crash_loop_falls_back_to_the_version_before(node: Versions) -> None:
    assert node.running() == GOOD

    def crashed() -> bool:
        if node.state(layout.SERVICE) == "active":
            node.node.systemctl("kill", "--kill-who=main", "--signal=KILL", layout.SERVICE)
        return node.running() == node.first

    wait_for("the version before", crashed, timeout=60)
    wait_for("the end of the fallback", lambda: node.state(layout.FALLBACK) == "inactive", timeout=60)
    assert node.version_of_daemon() == node.first
    assert node.result()["reason"] == "DaemonCrashLoop"
    assert node.serves()


def test_power_cut_in_an_upgrade_ends_in_one_version(node: Versions, source: Path) -> None:
    hanging, serving = "6" * 16, node.running()
    other_version(source, node.layout.versions, hanging, HANGS)
    node.stage(hanging, SPEC)
    node.node.systemctl("start", "--no-block", layout.SWITCH)
    wait_for("the other version", lambda: node.running() == hanging, timeout=60, every=0.05)
    node.node.reboot(hard=True)
    began = time.monotonic()
    wait_for("the version before", lambda: node.running() == serving and node.serves(), timeout=150)
    print(f"power cut: served again {time.monotonic() - began:.0f} s after the boot")
    assert time.monotonic() - began < 45
    wait_for("the end of the upgrade", lambda: not node.is_upgrading(), timeout=60)
