"""The NodeRuntime is deleted in the middle of an upgrade."""

from __future__ import annotations

from story import steps
from story.fleet import UPDATE, Fleet, Version
from story.manifests import noderuntime


def test_deletion_during_an_upgrade_leaves_nothing(fleet: Fleet, target: Version, excused: set[str]) -> None:
    excused.update(steps.HANDLERS)
    fleet.upgrade(target)
    fleet.wait_first(target)
    message = steps.delete_blocked(fleet.cluster, [f"{kind}-node1" for kind in steps.HANDLERS])
    assert steps.ORDINARY not in message
    fleet.delete_pods(*steps.HANDLERS)
    for node in fleet.nodes:
        steps.delete_finishes(fleet.cluster, node)
    fleet.kubectl.apply(noderuntime(update=UPDATE))
    fleet.wait_settled(target)
    fleet.start_pods(*steps.HANDLERS)
