"""The demo's story on several nodes: a version that rolls itself back, and a good one in waves."""

from __future__ import annotations

from harness.cluster import Cluster
from harness.versions import EXITS
from story import steps
from story.fleet import UPDATE, Fleet
from story.report import Report, say

BAD, GOOD = "2" * 16, "1" * 16

Identities = dict[str, steps.Identity]


def run(cluster: Cluster, report: Report, count: int) -> None:
    """Run all steps of the story on a cluster of count nodes."""
    with report.step("the project's image, built and pushed to a local registry"):
        fleet = Fleet(cluster, steps.build_image(cluster))
        say(fleet.version.image)
    with report.step(f"a cluster of {count} nodes, with stock containerd and no Python"):
        fleet.boot(count)
        say(fleet.kubectl("get", "nodes", "-o", "wide"))
    with report.step("an ordinary pod on each node"):
        fleet.start_pods(steps.ORDINARY)
        ordinary = fleet.identities()
    with report.step("helm install and a NodeRuntime with a canary"):
        fleet.install(update=UPDATE)
        _say_state(fleet)
    with report.step("pods that select runc and gVisor by RuntimeClass, on each node"):
        fleet.start_pods(*steps.HANDLERS)
        say(fleet.kubectl("get", "pods", "-o", "wide"))
        _check_untouched(fleet, ordinary)
    pods = fleet.identities()
    with report.step("helm upgrade to a version whose daemon exits: the canary node returns to the old one"):
        _upgrade_to_bad_version(fleet, report)
        _check_untouched(fleet, pods)
    with report.step("helm upgrade to a good version: the canary node first, then the others"):
        _upgrade_to_good_version(fleet, report)
        _check_untouched(fleet, pods)
    with report.step("kubectl delete noderuntime"):
        _delete(fleet)
        _check_untouched(fleet, ordinary)


def _upgrade_to_bad_version(fleet: Fleet, report: Report) -> None:
    bad, before = fleet.other_version(BAD, EXITS), fleet.version
    with fleet.without_socket() as seconds, fleet.versions_watched() as seen:
        fleet.upgrade(bad)
        condition = fleet.wait_condition("RolledBack", timeout=300)
        fleet.wait_version(before)
    say(f"RolledBack: {condition['message']}")
    failed = {name for name, away in seconds().items() if away > 1}
    steps.expect(len(failed) == 1, f"more than the canary node tried the bad version: {seconds()}")
    versions = {one.fields[1] for one in seen}
    steps.expect(versions - {bad.digest} == {before.digest}, f"other versions ran: {versions}")
    report.numbers["without a socket, version that exits, s"] = max(seconds().values())
    _say_state(fleet)


def _upgrade_to_good_version(fleet: Fleet, report: Report) -> None:
    good = fleet.other_version(GOOD, {})
    with fleet.without_socket() as seconds, fleet.versions_watched() as seen:
        fleet.upgrade(good)
        fleet.wait_settled(good)
    order = [one.fields[0] for one in seen if one.fields[1:] == (good.digest, "Ready")]
    say(f"order of the nodes: {', '.join(dict.fromkeys(order))}")
    report.numbers["without a socket, good version, s"] = max(seconds().values())
    _say_state(fleet)


def _delete(fleet: Fleet) -> None:
    say(f"waiting: {steps.delete_blocked(fleet.cluster, list(steps.HANDLERS))}")
    fleet.delete_pods(*steps.HANDLERS)
    for node in fleet.nodes:
        steps.delete_finishes(fleet.cluster, node)
    say("the kubelets use containerd again; nothing of noderuntime is left on the nodes or in the API")


def _check_untouched(fleet: Fleet, before: Identities) -> None:
    after = fleet.identities()
    changed = sorted(name for name, known in before.items() if after.get(name) != known)
    steps.expect(not changed, f"pods were restarted: {changed}")
    say(f"not restarted: {', '.join(sorted(before))}")


def _say_state(fleet: Fleet) -> None:
    say(fleet.kubectl("get", "noderuntime,noderuntimeinstance", "-o", "wide"))
