"""Pods with ``hostUsers: false``: root in the pod is an unprivileged user of the node."""

from __future__ import annotations

from dataclasses import dataclass

from kubelet.kit.pods import SLEEP, container, once, pod, secret
from kubelet.kit.workloads import Workloads
from kubelet.kit.world import World

from harness.kubectl import Manifest

_ALL = 2**32 - 1


@dataclass(frozen=True)
class Mapping:
    """A line of ``/proc/<pid>/uid_map``."""

    inside: int
    outside: int
    length: int


def _isolated(name: str, script: str) -> Manifest:
    return pod(name, container("main", script), hostUsers=False)


def _mapping(workloads: Workloads, name: str, kind: str = "uid") -> Mapping:
    [line] = workloads.run_in(name, "cat", f"/proc/self/{kind}_map").splitlines()
    return Mapping(*map(int, line.split()))


def test_root_of_the_pod_is_not_root_of_the_node(world: World, workloads: Workloads) -> None:
    ordinary = pod("ordinary", container("main", SLEEP))
    workloads.ready(_isolated("apart", SLEEP), _isolated("too", SLEEP), ordinary)
    assert _mapping(workloads, "ordinary").length == _ALL
    apart, too = _mapping(workloads, "apart"), _mapping(workloads, "too")
    for mapping, name in ((apart, "apart"), (too, "too")):
        assert (mapping.inside, mapping.length) == (0, 65536)
        assert mapping.outside >= 65536
        assert _mapping(workloads, name, "gid") == mapping
        assert workloads.run_in(name, "id", "-u") == "0\n"
        assert _owner_of_processes(world, workloads, name) == {mapping.outside}
    assert abs(apart.outside - too.outside) >= 65536


def _owner_of_processes(world: World, workloads: Workloads, name: str) -> set[int]:
    """Return the user IDs of a pod's processes on the node."""
    uid = workloads.kubectl.get("pod", name)["metadata"]["uid"].replace("-", "[-_]")
    found = f"grep -l pod{uid} /proc/[0-9]*/cgroup | xargs -n 1 dirname"
    script = f"for one in $({found}); do grep -q sleep $one/comm && stat -c %u $one; done; true"
    return {int(line) for line in world.node.exec("sh", "-c", script).split()}


def test_files_belong_to_root_inside_and_on_the_node(world: World, workloads: Workloads) -> None:
    workloads.apply(secret("hidden", word="sesame"))
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "hidden", "secret": {"secretName": "hidden", "defaultMode": 0o400}},
    ]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("scratch", "hidden")]
    report = "cat /hidden/word; echo; touch /scratch/file; stat -c '%n %u' /scratch/file /bin/busybox"
    main = container("main", f"{report}; {SLEEP}", volumeMounts=mounts)
    workloads.ready(pod("files", main, hostUsers=False, volumes=volumes))
    log = workloads.logged("files", "/bin/busybox")
    assert log.splitlines() == ["sesame", "/scratch/file 0", "/bin/busybox 0"]
    uid = workloads.kubectl.get("pod", "files")["metadata"]["uid"]
    file = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/scratch/file"
    assert world.node.exec("stat", "-c", "%u", file) == "0\n"


def test_pod_cannot_use_privileges_of_the_nodes_root(workloads: Workloads) -> None:
    capable = {"securityContext": {"capabilities": {"add": ["SYS_ADMIN", "MKNOD"]}}}
    script = "mount -t tmpfs x /tmp && echo mounts; mknod /tmp/disk b 8 0 2>/dev/null || echo no devices"
    main = container("main", script, **capable)
    workloads.apply(pod("capable", main, hostUsers=False, restartPolicy="Never"))
    workloads.ended("capable")
    assert workloads.log("capable").splitlines() == ["mounts", "no devices"]


def test_all_kinds_of_containers_use_the_namespace(workloads: Workloads) -> None:
    init = container("init", "cat /proc/self/uid_map")
    probe = {"exec": {"command": ["sh", "-c", "test $(id -u) = 1000"]}, "periodSeconds": 1}
    user = {"runAsUser": 1000, "runAsGroup": 1000}
    script = f"cat /proc/self/uid_map; {SLEEP}"
    main = container("main", script, readinessProbe=probe, securityContext=user)
    workloads.ready(pod("kinds", main, initContainers=[init], hostUsers=False))
    mapping = _mapping(workloads, "kinds")
    for name in ("init", "main"):
        assert workloads.log("kinds", "-c", name).split() == ["0", str(mapping.outside), "65536"]


def test_writes_do_not_change_the_shared_image(workloads: Workloads) -> None:
    workloads.ready(_isolated("changes", f"echo changed > /bin/new; {SLEEP}"))
    workloads.apply(once("unchanged", "ls /bin/new 2>&1; stat -c %u /bin/busybox"))
    workloads.ended("unchanged")
    assert workloads.log("unchanged").splitlines()[-1] == "0"
    assert "No such file" in workloads.log("unchanged")
    assert workloads.container("changes")["imageID"] == workloads.container("unchanged")["imageID"]


def test_gvisor_refuses_user_namespaces(workloads: Workloads) -> None:
    workloads.apply(pod("sealed", container("main", SLEEP), runtime="gvisor", hostUsers=False))
    assert "user namespaces" in workloads.event("sealed", "FailedCreatePodSandBox")
