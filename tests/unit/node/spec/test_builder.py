from __future__ import annotations

import dataclasses
import json
import socket
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
    container = ContainerInput("c" * 64, config, ImageConfig(cmd=("run",)), rootfs, target)
    return container_spec(pod, container, facts)


def namespaces(spec: Spec) -> dict[str, str]:
    return {namespace["type"]: namespace.get("path", "") for namespace in spec["linux"]["namespaces"]}


def test_container_spec_has_all_namespaces_by_default(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    spec = build(pod, facts, rootfs, api_pb2.ContainerConfig())
    assert json.loads(json.dumps(spec)) == spec
    assert spec["process"]["args"] == ["run"]
    assert spec["linux"]["cgroupsPath"] == "/kubepods/pod1/" + "c" * 64
    assert namespaces(spec) == {
        "mount": "",
        "network": "/run/netns/n",
        "ipc": "/run/s/ipc",
        "uts": "/run/s/uts",
        "cgroup": "",
        "pid": "",
    }
    assert "seccomp" not in spec["linux"]
    assert "hostname" not in spec


def test_cgroups_path_of_the_systemd_driver_is_slice_and_scope(
    pod: Pod, facts: HostFacts, rootfs: Path
) -> None:
    inside = dataclasses.replace(pod, driver="systemd", cgroup="/kubepods.slice/kubepods-pod1.slice")
    spec = build(inside, facts, rootfs, api_pb2.ContainerConfig())
    assert spec["linux"]["cgroupsPath"] == f"kubepods-pod1.slice:noderuntime:{'c' * 64}"


def test_pid_namespace_follows_the_namespace_mode(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    config = api_pb2.ContainerConfig()
    options = config.linux.security_context.namespace_options
    shared = dataclasses.replace(pod, namespaces={**pod.namespaces, "pid": "/proc/7/ns/pid"})
    options.pid = api_pb2.NamespaceMode.POD
    assert namespaces(build(shared, facts, rootfs, config))["pid"] == "/proc/7/ns/pid"
    options.pid = api_pb2.NamespaceMode.CONTAINER
    assert namespaces(build(shared, facts, rootfs, config))["pid"] == ""
    options.pid = api_pb2.NamespaceMode.NODE
    assert "pid" not in namespaces(build(shared, facts, rootfs, config))
    options.pid = api_pb2.NamespaceMode.TARGET
    assert namespaces(build(shared, facts, rootfs, config, 9))["pid"] == "/proc/9/ns/pid"
    with pytest.raises(FailedPrecondition):
        build(shared, facts, rootfs, config)


def test_privileged_container_is_not_confined(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
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
    assert "/dev/null" in {device["path"] for device in linux["devices"]}


def test_gvisor_gets_only_localhost_seccomp_profiles(
    pod: Pod, facts: HostFacts, rootfs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    known = dataclasses.replace(facts, seccomp_profile=file)
    sentry = dataclasses.replace(pod, own_kernel=True)
    config = api_pb2.ContainerConfig()
    config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    assert "seccomp" in build(pod, known, rootfs, config)["linux"]
    assert "seccomp" not in build(sentry, known, rootfs, config)["linux"]
    config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.Localhost
    config.linux.security_context.seccomp.localhost_ref = str(file)
    assert build(sentry, known, rootfs, config)["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"


def test_privileged_container_requires_a_privileged_pod(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    config = api_pb2.ContainerConfig()
    config.linux.security_context.privileged = True
    with pytest.raises(InvalidArgument, match="requires a privileged pod"):
        build(pod, facts, rootfs, config)


def test_container_devices_become_nodes_rules_or_mounts() -> None:
    config = api_pb2.ContainerConfig()
    config.devices.add(container_path="/dev/mine", host_path="/dev/null", permissions="r")
    devices, rules, mounts = container_devices(config)
    assert [(device["path"], device["type"], device["major"], device["minor"]) for device in devices] == [
        ("/dev/mine", "c", 1, 3)
    ]
    assert rules == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "access": "r", "type": "c", "major": 1, "minor": 3},
    ]
    assert mounts == []
    bound = container_devices(config, can_mknod=False)
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


def test_oom_score_adj_is_clamped_to_the_daemons_own(facts: HostFacts) -> None:
    weak = dataclasses.replace(facts, capabilities=0, oom_score_adj=-5)
    assert oom_score_adj(-998, facts) == -998
    assert oom_score_adj(-998, weak) == -5
    assert oom_score_adj(100, weak) == 100
    with pytest.raises(InvalidArgument):
        oom_score_adj(1001, facts)


@pytest.mark.parametrize("field", ["run_as_user", "run_as_group"])
@pytest.mark.parametrize("number", [-1, 1 << 31, -(1 << 63)])
def test_root_spec_refuses_invalid_ids(
    pod: Pod, facts: HostFacts, rootfs: Path, field: str, number: int
) -> None:
    getattr(pod.config.linux.security_context, field).value = number
    with pytest.raises(InvalidArgument, match=field):
        root_spec(pod, rootfs, ["/pause"], facts)


def test_root_spec_has_no_privileges(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    spec = root_spec(dataclasses.replace(pod, own_kernel=True), rootfs, ["/pause"], facts)
    assert "capabilities" not in spec["process"]
    assert spec["process"]["noNewPrivileges"]
    assert spec["root"]["readonly"]
    assert spec["hostname"] == "web-0"
    assert namespaces(spec)["network"] == "/run/netns/n"


def test_own_kernel_has_the_nodes_hostname_unless_requested(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    pod = dataclasses.replace(pod, own_kernel=True, config=api_pb2.PodSandboxConfig())
    for spec in (
        root_spec(pod, rootfs, ["/pause"], facts),
        build(pod, facts, rootfs, api_pb2.ContainerConfig()),
    ):
        assert spec["hostname"] == socket.gethostname()


def test_processes_have_the_limits_that_the_daemon_was_started_with(
    pod: Pod, facts: HostFacts, rootfs: Path
) -> None:
    facts = dataclasses.replace(facts, open_files=(1024, 524288))
    limits = [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524288}]
    spec = build(pod, facts, rootfs, api_pb2.ContainerConfig())
    assert spec["process"]["rlimits"] == limits
    assert exec_process(spec, ["ls"])["rlimits"] == limits
    assert root_spec(pod, rootfs, ["/pause"], facts)["process"]["rlimits"] == limits


def test_exec_process_inherits_from_its_container(pod: Pod, facts: HostFacts, rootfs: Path) -> None:
    spec = build(pod, facts, rootfs, api_pb2.ContainerConfig())
    process = exec_process(spec, ["ls", "-l"], tty=True)
    assert process["args"] == ["ls", "-l"]
    assert process["terminal"]
    assert "TERM=xterm" in process["env"]
    assert process["user"] == spec["process"]["user"]
    assert "oomScoreAdj" not in process
    with pytest.raises(InvalidArgument):
        exec_process(spec, [])
