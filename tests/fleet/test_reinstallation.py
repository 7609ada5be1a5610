"""The chart is uninstalled while its NodeRuntime exists, and installed again."""

from __future__ import annotations

from harness.run import wait_for
from story import steps
from story.fleet import Fleet

ELSEWHERE = "noderuntime-elsewhere"
TAKE = "--take-ownership"
"""The CRDs stay, and belong to the release before."""


def test_chart_installed_again_continues(fleet: Fleet) -> None:
    steps.uninstall_chart(fleet.cluster)
    steps.install_chart(fleet.cluster, fleet.version.image)
    change_all_nodes(fleet, 71)


def test_chart_installed_in_another_namespace_takes_over(fleet: Fleet) -> None:
    steps.uninstall_chart(fleet.cluster)
    steps.install_chart(fleet.cluster, fleet.version.image, TAKE, namespace=ELSEWHERE)
    try:
        change_all_nodes(fleet, 72)
        wait_for("one agent per node", lambda: len(agents(fleet)) == len(fleet.nodes), timeout=120, every=1)
        assert {agent["metadata"]["namespace"] for agent in agents(fleet)} == {ELSEWHERE}
    finally:
        steps.uninstall_chart(fleet.cluster, namespace=ELSEWHERE)
        steps.install_chart(fleet.cluster, fleet.version.image, TAKE)
    change_all_nodes(fleet, 73)


def change_all_nodes(fleet: Fleet, seconds: int) -> None:
    """Change the spec, and wait until every agent has applied it."""
    fleet.patch({"kubelet": {"switchTimeoutSeconds": seconds}})
    for node in fleet.nodes:
        fleet.wait_applied(node, switchTimeoutSeconds=seconds)


def agents(fleet: Fleet) -> list[dict[str, dict[str, str]]]:
    """Return the agents' pods of all namespaces."""
    found: list[dict[str, dict[str, str]]] = fleet.kubectl.get("pods", "-A", "-l", steps.AGENTS)["items"]
    return found
