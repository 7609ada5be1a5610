from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from noderuntime.core.errors import FailedPrecondition, InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import ImageConfig
from noderuntime.node.spec.builder import Spec, container_spec, exec_process, root_spec
from noderuntime.node.spec.devices import container_devices
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.inputs import ContainerInput, Pod
from noderuntime.node.spec.resources import oom_score_adj


def build(
    pod: Pod, facts: HostFacts, rootfs: Path, config: api_pb2.ContainerConfig, target: int | None = None
) -> Spec:
    made = ContainerInput("c" * 64, config, ImageConfig(cmd=("run",)), rootfs, target)
    return container_spec(pod, made, facts)


def kinds(spec: Spec) -> dict[str, str]:
    return {one["type"]: one.get("path", "") for one in spec["linux"]["namespaces"]}


def test_a_plain_container(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    spec = build(pod, facts, rootfs, api_pb2.ContainerConfig())
    assert json.loads(json.dumps(spec)) == spec
    assert spec["process"]["args"] == ["run"]
    assert spec["linux"]["cgroupsPath"] == "/kubepods/pod1/" + "c" * 64
    assert kinds(spec) == {
        "mount": "",
        "network": "/run/netns/n",
        "ipc": "/run/s/ipc",
        "uts": "/run/s/uts",
        "cgroup": "",
        "pid": "",
    }
    assert "seccomp" not in spec["linux"]
    assert "hostname" not in spec


def test_the_systemd_driver_names_slice_and_scope(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    inside = dataclasses.replace(pod, driver="systemd", cgroup="/kubepods.slice/kubepods-pod1.slice")
    spec = build(inside, facts, rootfs, api_pb2.ContainerConfig())
    assert spec["linux"]["cgroupsPath"] == f"kubepods-pod1.slice:noderuntime:{'c' * 64}"


def test_the_four_ways_to_see_processes(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    config = api_pb2.ContainerConfig()
    options = config.linux.security_context.namespace_options
    shared = dataclasses.replace(pod, namespaces={**pod.namespaces, "pid": "/proc/7/ns/pid"})
    options.pid = api_pb2.NamespaceMode.POD
    assert kinds(build(shared, facts, rootfs, config))["pid"] == "/proc/7/ns/pid"
    options.pid = api_pb2.NamespaceMode.CONTAINER
    assert kinds(build(shared, facts, rootfs, config))["pid"] == ""
    options.pid = api_pb2.NamespaceMode.NODE
    assert "pid" not in kinds(build(shared, facts, rootfs, config))
    options.pid = api_pb2.NamespaceMode.TARGET
    assert kinds(build(shared, facts, rootfs, config, 9))["pid"] == "/proc/9/ns/pid"
    with pytest.raises(FailedPrecondition):
        build(shared, facts, rootfs, config)


def test_privileged_containers_are_not_confined(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    config = api_pb2.ContainerConfig()
    context = config.linux.security_context
    context.privileged = True
    pod.config.linux.security_context.privileged = True
    context.masked_paths.append("/proc/kcore")
    context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    linux = build(pod, facts, rootfs, config)["linux"]
    assert "maskedPaths" not in linux
    assert "seccomp" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "/dev/null" in {one["path"] for one in linux["devices"]}


def test_the_default_seccomp_profile_is_not_for_gvisor_but_the_pods_own_is(
    pod: Pod, facts: HostFacts, rootfs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    known = dataclasses.replace(facts, seccomp_profile=file)
    sentry = dataclasses.replace(pod, handler="gvisor")
    config = api_pb2.ContainerConfig()
    config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    assert "seccomp" in build(pod, known, rootfs, config)["linux"]
    assert "seccomp" not in build(sentry, known, rootfs, config)["linux"]
    config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.Localhost
    config.linux.security_context.seccomp.localhost_ref = str(file)
    assert build(sentry, known, rootfs, config)["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"


def test_a_privileged_container_needs_a_privileged_pod(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    config = api_pb2.ContainerConfig()
    config.linux.security_context.privileged = True
    with pytest.raises(InvalidArgument, match="in a pod that is not"):
        build(pod, facts, rootfs, config)


def test_devices_of_the_pod() -> None:
    config = api_pb2.ContainerConfig()
    config.devices.add(container_path="/dev/mine", host_path="/dev/null", permissions="r")
    devices, rules, mounts = container_devices(config)
    assert [(one["path"], one["type"], one["major"], one["minor"]) for one in devices] == [
        ("/dev/mine", "c", 1, 3)
    ]
    assert rules == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "access": "r", "type": "c", "major": 1, "minor": 3},
    ]
    assert mounts == []
    bound = container_devices(config, makes_nodes=False)
    assert (bound.nodes, bound.rules) == ([], rules)
    assert (bound.mounts[0]["source"], bound.mounts[0]["destination"]) == ("/dev/null", "/dev/mine")
    for path, access in (
        ("/no/such", "r"),
        ("dev/null", "r"),
        ("/etc/passwd", "r"),
        ("/dev/null", "x"),
    ):
        bad = api_pb2.ContainerConfig()
        bad.devices.add(container_path="/dev/x", host_path=path, permissions=access)
        with pytest.raises(InvalidArgument):
            container_devices(bad)


def test_the_oom_score_is_clamped_where_the_kernel_would_refuse_it(facts: HostFacts) -> None:
    weak = dataclasses.replace(facts, capabilities=0, oom_score_adj=-5)
    assert oom_score_adj(-998, facts) == -998
    assert oom_score_adj(-998, weak) == -5
    assert oom_score_adj(100, weak) == 100
    with pytest.raises(InvalidArgument):
        oom_score_adj(1001, facts)


@pytest.mark.parametrize("field", ["run_as_user", "run_as_group"])
@pytest.mark.parametrize("number", [-1, 1 << 31, -(1 << 63)])
def test_a_sandbox_has_a_user_that_there_can_be(
    pod: Pod, facts: HostFacts, rootfs: Path, field: str, number: int
) -> None:
    getattr(pod.config.linux.security_context, field).value = number
    with pytest.raises(InvalidArgument, match=field):
        root_spec(pod, rootfs, ["/pause"], facts)


def test_the_root_container_can_do_nothing(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    spec = root_spec(dataclasses.replace(pod, handler="gvisor"), rootfs, ["/pause"], facts)
    assert "capabilities" not in spec["process"]
    assert spec["process"]["noNewPrivileges"]
    assert spec["root"]["readonly"]
    assert spec["hostname"] == "web-0"
    assert kinds(spec)["network"] == "/run/netns/n"


def test_an_exec_inherits_from_its_container(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    spec = build(pod, facts, rootfs, api_pb2.ContainerConfig())
    process = exec_process(spec, ["ls", "-l"], tty=True)
    assert process["args"] == ["ls", "-l"]
    assert process["terminal"]
    assert "TERM=xterm" in process["env"]
    assert process["user"] == spec["process"]["user"]
    assert "oomScoreAdj" not in process
    with pytest.raises(InvalidArgument):
        exec_process(spec, [])
