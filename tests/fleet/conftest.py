"""One cluster of three nodes for all tests, with pods on every node; each test must leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.cluster import Cluster
from harness.paths import REPO
from harness.run import run, wait_for
from harness.watch import watched
from story import steps
from story.fleet import KINDS, UPDATE, Fleet, Version

NAME = "fleet"
NODES = 3
SMALL = "node3"
"""The node whose filesystem for versions is small, so that a test can fill it."""
_LOGS = REPO / "build/fleet-logs"


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The installed cluster. After the last test nothing of it is left on the machine."""
    cluster = Cluster(NAME)
    cluster.down()
    try:
        fleet = Fleet(cluster, steps.build_image(cluster))
        fleet.boot(NODES)
        _shrink(fleet)
        fleet.start_pods(steps.ORDINARY)
        _install(fleet)
        fleet.start_pods(*KINDS)
        yield fleet
        _remove(fleet)
    except Exception:
        steps.save_logs(cluster, _LOGS / "fixture")
        raise
    finally:
        cluster.down()
    assert cluster.leftovers() == []


@pytest.fixture(scope="session")
def versions(fleet: Fleet) -> tuple[Version, Version]:
    """Two good versions."""
    return fleet.version, fleet.other_version("1" * 16, {})


@pytest.fixture
def target(fleet: Fleet, versions: tuple[Version, Version]) -> Version:
    """A good version that is not installed."""
    first, second = versions
    return second if fleet.version == first else first


@pytest.fixture(autouse=True)
def excused(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[set[str]]:
    """Check after each test that it harmed neither nodes nor pods.

    Yields a set to which a test adds what it harms itself: nodes, or kinds of pods.

    A test that failed leaves its version behind, so the one before is installed again first.
    """
    failures = request.session.testsfailed
    fleet.restore()
    before, allowed = fleet.identities(), set[str]()
    with fleet.nodes_watched() as seen:
        yield allowed
        if request.session.testsfailed > failures:
            steps.save_logs(fleet.cluster, _LOGS / request.node.name)
            return
        fleet.wait_settled()
        names = {node.name for node in fleet.nodes}
        wait_for("a view of all nodes", lambda: names <= {one.fields[0] for one in seen}, timeout=60)
    not_ready = [one.fields for one in seen if one.fields[1] != "True" and one.fields[0] not in allowed]
    assert not_ready == []
    after = fleet.identities()
    assert _without(after, allowed) == _without(before, allowed)
    fleet.check_served()
    fleet.check_logs()
    fleet.check_connections()


def _install(fleet: Fleet) -> None:
    """Install noderuntime; check that a handler's label which a kubelet registered with is not believed."""
    before = fleet.identities()
    fleet.kubectl("label", "node", SMALL, "handler.noderuntime.dev/gvisor=true")
    owner, handler = (r"noderuntime\.dev/runtime", r"handler\.noderuntime\.dev/gvisor")
    paths = (".metadata.name", f".metadata.labels.{owner}", f".metadata.labels.{handler}")
    with watched(fleet.kubectl, "nodes", *paths) as seen:
        fleet.install(update={"maxUnavailable": NODES})
    claimed = [one.fields[2] for one in seen if one.fields[:2] == (SMALL, steps.RELEASE)]
    assert (claimed[0], claimed[-1]) == ("", "true")
    assert fleet.identities() == before
    fleet.patch({"update": UPDATE})


def _shrink(fleet: Fleet) -> None:
    """Mount a disk of 1200 MiB at a node's /opt: a few versions fit.

    Files on a tmpfs would count as memory of the agent, which wrote them.
    """
    node = next(node for node in fleet.nodes if node.name == SMALL)
    disk = node.directory / "kubelet/small.img"
    run("truncate", "--size=1200M", str(disk))
    run("mkfs.ext4", "-q", str(disk))
    node.exec("sh", "-ec", _MOUNT_SMALL)


_MOUNT_SMALL = """
mknod /dev/loop-control c 10 237
for number in $(seq 0 15); do mknod /dev/loop$number b 7 $number; done
mkdir /run/small
mount -o loop /var/lib/kubelet/small.img /run/small
cp -a /opt/. /run/small
mount --bind /run/small /opt
"""


def _remove(fleet: Fleet) -> None:
    """Delete the NodeRuntime, and check that nothing of it is left on the nodes and in the API."""
    fleet.delete_pods(*steps.HANDLERS)
    fleet.kubectl("delete", "noderuntime", steps.RELEASE, "--wait=false")
    for node in fleet.nodes:
        steps.delete_finishes(fleet.cluster, node)


def _without(pods: dict[str, steps.Identity], excused: set[str]) -> dict[str, steps.Identity]:
    return {name: known for name, known in pods.items() if excused.isdisjoint(name.split("-"))}
