"""Upgrades of three nodes: a good version, and bad ones that fail in different ways."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.versions import CANARY_FAILS, EXITS, HANGS, REFUSES_LOG_LEVEL, Edits
from harness.watch import Seen
from story import steps
from story.fleet import SOAK_SECONDS, Fleet, Version

DROP_IN = "/etc/noderuntime/conf.d/50-log.toml"
MOST_SECONDS_WITHOUT_SOCKET = 20.0
"""A kubelet is NotReady after 30 s."""


@dataclass(frozen=True)
class Bad:
    """A bad version: its digest, its edits, and how the first node reports its failure."""

    digest: str
    edits: Edits
    reason: str
    message: str


EXITING = Bad("2" * 16, EXITS, "UpgradeRolledBack", "the ledger is upside down")
HANGING = Bad("3" * 16, HANGS, "UpgradeRolledBack", "was not ready 12 s after its start")
REFUSING = Bad("4" * 16, REFUSES_LOG_LEVEL, "UpgradeRefused", "log.level")
UNPROVEN = Bad("5" * 16, CANARY_FAILS, "UpgradeRolledBack", "gvisor")


@pytest.mark.quick
def test_good_version_reaches_the_nodes_one_by_one(fleet: Fleet, target: Version) -> None:
    with fleet.without_socket() as seconds, fleet.versions_watched() as seen:
        fleet.upgrade(target)
        fleet.wait_settled(target)
    print(f"good version: {seconds()} s without a socket")
    assert 0.1 < min(seconds().values()) <= max(seconds().values()) < 5, "or no restart was observed"
    assert most_at_once(seen) == 1
    canary, *others = sorted(ready_times(seen, target))
    assert others[0] - canary > SOAK_SECONDS


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(EXITING, id="exits", marks=pytest.mark.quick),
        pytest.param(HANGING, id="hangs"),
        pytest.param(REFUSING, id="refuses a drop-in"),
        pytest.param(UNPROVEN, id="canary fails"),
    ],
)
def test_bad_version_stops_at_the_first_node(fleet: Fleet, bad: Bad) -> None:
    version = fleet.other_version(bad.digest, bad.edits)
    for node in fleet.nodes:
        node.exec(
            "sh", "-c", f"mkdir -p $(dirname {DROP_IN}); cat > {DROP_IN}", stdin='[log]\nlevel = "info"\n'
        )
    with fleet.without_socket() as seconds, fleet.versions_watched() as seen:
        fleet.upgrade(version)
        rolled_back = fleet.wait_condition("RolledBack", timeout=300)
        fleet.wait_version(fleet.version)
    print(f"{bad.message}: {seconds()} s without a socket")
    tried = {one.fields[0] for one in seen if one.fields[2] in ("Degraded", "Failed")}
    assert len(tried) == 1
    (first,) = tried
    assert first in rolled_back["message"]
    assert bad.message in rolled_back["message"]
    assert seconds()[first] < MOST_SECONDS_WITHOUT_SOCKET
    assert {one.fields[1] for one in seen if one.fields[0] != first} == {fleet.version.digest}
    steps.roll_back_chart(fleet.cluster)
    fleet.wait_settled()


def ready_times(seen: list[Seen], version: Version) -> list[float]:
    """Return when each node was Ready on the version for the first time."""
    found: dict[str, float] = {}
    for one in seen:
        if one.fields[1:] == (version.digest, "Ready"):
            found.setdefault(one.fields[0], one.at)
    return list(found.values())


def most_at_once(seen: list[Seen]) -> int:
    """Return the largest number of nodes that were not Ready at the same time."""
    phases: dict[str, str] = {}
    counts = [0]
    for one in seen:
        phases[one.fields[0]] = one.fields[2]
        counts.append(sum(phase != "Ready" for phase in phases.values()))
    return max(counts)
