"""The settings of a container's config, verified from inside the container."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.scripts import linux, said_by

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "crun", "gvisor"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_user_and_groups(kubelet: Kubelet, handler: str) -> None:
    asked = linux(
        run_as_user=api_pb2.Int64Value(value=1234),
        run_as_group=api_pb2.Int64Value(value=2345),
        supplemental_groups=[4567, 3456],
    )
    output = said_by(kubelet, handler, "id -u; id -g; id -G", linux=asked)
    assert output == ["1234", "2345", "2345 3456 4567"]


@pytest.mark.parametrize("handler", ["runc", "gvisor", "theirs"])
def test_an_empty_entrypoint_of_the_image_counts_as_none(
    kubelet: Kubelet, containerd: Containerd, handler: str
) -> None:
    containerd.import_image("noderuntime.test/reset:1", ["echo", "from", "the image"], entrypoint=[""])
    image = api_pb2.ImageSpec(image="noderuntime.test/reset:1")
    assert said_by(kubelet, handler, "", image=image, command=[]) == ["from the image"]
    args = ["echo", "from the pod"]
    assert said_by(kubelet, handler, "", image=image, command=[], args=args) == ["from the pod"]


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("fault", ["/no/such/program", "mount"])
def test_container_that_cannot_run_is_a_start_error(
    kubelet: Kubelet, handler: str, fault: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    mount = api_pb2.Mount(container_path="/bin", host_path=str(tmp_path / "file"))  # not a directory
    fields = {"mounts": [mount]} if fault == "mount" else {"command": [fault]}
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.create(pod, config, "main", "true", **fields)
    assert kubelet.status(container).state == api_pb2.CONTAINER_CREATED
    with pytest.raises(grpc.RpcError, match=fault):
        kubelet.start(container)
    status = kubelet.status(container)
    assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_EXITED, 128, "StartError")
    assert fault in status.message
    assert status.started_at == 0
    assert status.finished_at >= status.created_at
    assert kubelet.containers() == {container}


@pytest.mark.parametrize("handler", HANDLERS)
def test_environment_directory_and_hostname(kubelet: Kubelet, handler: str) -> None:
    envs = [api_pb2.KeyValue(key="ASKED", value=b"a b=c")]
    output = said_by(kubelet, handler, "echo $ASKED; pwd; hostname", envs=envs, working_dir="/made/for/it")
    assert output == ["a b=c", "/made/for/it", "life"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_mounts_are_writable_or_read_only(kubelet: Kubelet, handler: str, tmp_path: Path) -> None:
    writable, fixed = tmp_path / "w", tmp_path / "r"
    fixed.mkdir()
    (fixed / "file").write_text("from the node\n")
    mounts = [
        api_pb2.Mount(container_path="/w", host_path=str(writable)),
        api_pb2.Mount(container_path="/r", host_path=str(fixed), readonly=True),
    ]
    script = "cat /r/file; echo there >/w/file; echo no >/r/file || echo refused"
    output = said_by(kubelet, handler, script, mounts=mounts)
    assert "from the node" in output
    assert "refused" in output
    assert (writable / "file").read_text() == "there\n"
    assert (fixed / "file").read_text() == "from the node\n"


def test_mount_source_that_is_a_dangling_link_is_refused(kubelet: Kubelet, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    mount = api_pb2.Mount(container_path="/data", host_path=str(tmp_path / "link"))
    with pytest.raises(grpc.RpcError, match="is a symbolic link to a missing path") as refused:
        kubelet.create(pod, config, "main", "true", mounts=[mount])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(("handler", "writable"), [("runc", ["/plain"]), ("gvisor", [])])
def test_recursive_read_only_mounts_cover_submounts(
    kubelet: Kubelet, handler: str, writable: list[str], tmp_path: Path
) -> None:
    """Inside gVisor a mount is one filesystem with its submounts, so all of it is read-only."""
    below = tmp_path / "v/below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    try:
        mounts = [
            api_pb2.Mount(container_path="/plain", host_path=str(below.parent), readonly=True),
            api_pb2.Mount(
                container_path="/deep", host_path=str(below.parent), readonly=True, recursive_read_only=True
            ),
        ]
        script = (
            "for one in /plain /deep; do touch $one/below/x && echo $one; touch $one/x && echo $one; done"
        )
        output = said_by(kubelet, handler, f"({script}) 2>/dev/null; true", mounts=mounts)
    finally:
        subprocess.run(["umount", below], check=True)
    assert output == writable
    features = {one.name: one.features for one in kubelet.node_status().runtime_handlers}
    assert features[handler].recursive_read_only_mounts


def test_only_root_can_read_a_containers_environment(kubelet: Kubelet, daemon: Daemon) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.create(pod, config, "main", "true")
    assert (daemon.run / "containers" / container / "config.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_read_only_root(kubelet: Kubelet, handler: str) -> None:
    asked = linux(readonly_rootfs=True)
    assert "refused" in said_by(kubelet, handler, "echo x >/file || echo refused", linux=asked)


@pytest.mark.parametrize("handler", HANDLERS)
def test_capabilities(kubelet: Kubelet, handler: str) -> None:
    script = "grep CapEff /proc/self/status | tr -s '[:space:]' ' '"
    asked = linux(capabilities=api_pb2.Capability(drop_capabilities=["ALL"], add_capabilities=["KILL"]))
    assert said_by(kubelet, handler, script, linux=asked)[0].split()[1] == f"{1 << 5:016x}"


def test_seccomp_and_no_new_privileges(kubelet: Kubelet) -> None:
    script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '[:blank:]'"
    default = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)
    confined = said_by(kubelet, "runc", script, linux=linux(seccomp=default, no_new_privs=True))
    assert sorted(confined) == ["NoNewPrivs:1", "Seccomp:2"]
    unconfined = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Unconfined)
    assert sorted(said_by(kubelet, "runc", script, linux=linux(seccomp=unconfined))) == [
        "NoNewPrivs:0",
        "Seccomp:0",
    ]


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("rest", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_a_seccomp_profile_of_the_pods_own(kubelet: Kubelet, handler: str, rest: str, tmp_path: Path) -> None:
    rule = {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": rest, "syscalls": [rule]}))
    own = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref=str(profile))
    output = said_by(kubelet, handler, "touch /f && chmod 600 /f || echo refused", linux=linux(seccomp=own))
    assert "refused" in output


def test_gvisor_applies_no_default_seccomp_profile(kubelet: Kubelet) -> None:
    default = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)
    script = "grep Seccomp: /proc/self/status | tr -d '[:blank:]'"
    assert said_by(kubelet, "gvisor", script, linux=linux(seccomp=default)) == ["Seccomp:0"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (linux(privileged=True), "requires a privileged pod"),
        (linux(apparmor={"profile_type": 2, "localhost_ref": "none-such"}), "AppArmor"),
        (linux(selinux_options={"level": "secret"}), "SELinux level 'secret'"),
        (linux(supplemental_groups_policy=5), "5 is not a value of SupplementalGroupsPolicy"),
        (linux(masked_paths=["relative"]), "masked path 'relative'"),
        (linux(supplemental_groups=[-1]), "supplemental group"),
        (linux(capabilities={"add_capabilities": ["FLY"]}), "CAP_FLY"),
    ],
)
def test_what_is_refused_leaves_nothing(
    kubelet: Kubelet, fields: api_pb2.LinuxContainerConfig, words: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    with pytest.raises(grpc.RpcError) as refused:
        kubelet.create(pod, config, "main", "true", linux=fields)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in str(refused.value.details())
    assert kubelet.containers() == set()


@pytest.mark.parametrize(
    ("sysctl", "network"),
    [
        ({"kernel.core_pattern": "|/bin/x"}, api_pb2.POD),
        ({"net.ipv4.ip_forward": "1"}, api_pb2.NODE),
        ({"net.core.no_such_thing": "1"}, api_pb2.POD),
        ({"net.ipv4.ip_forward": "many"}, api_pb2.POD),
        ({"net/../../kernel/core_pattern": "x"}, api_pb2.POD),
    ],
)
def test_sysctls_outside_the_pods_namespaces_are_rejected(
    kubelet: Kubelet, sysctl: dict[str, str], network: api_pb2.NamespaceMode
) -> None:
    options = api_pb2.NamespaceOption(network=network, pid=api_pb2.CONTAINER)
    context = api_pb2.LinuxSandboxSecurityContext(namespace_options=options)
    config = kubelet.pod_config(linux=api_pb2.LinuxPodSandboxConfig(sysctls=sysctl, security_context=context))
    with pytest.raises(grpc.RpcError, match="sysctl") as refused:
        kubelet.run(config, "runc")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert kubelet.pods() == set()


@pytest.mark.parametrize(
    ("policy", "groups"), [(api_pb2.Merge, {33, 44, 9}), (api_pb2.Strict, {33, 9})], ids=["Merge", "Strict"]
)
def test_image_groups_are_added_unless_the_policy_is_strict(
    kubelet: Kubelet, policy: api_pb2.SupplementalGroupsPolicy, groups: set[int]
) -> None:
    asked = linux(run_as_username="web", supplemental_groups=[9], supplemental_groups_policy=policy)
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "id -G; exec sleep 1000", linux=asked)
    wait_until(lambda: kubelet.log(config, "main") != [], "its word")
    assert set(map(int, kubelet.log(config, "main")[0].split())) == groups
    assert set(kubelet.status(container).user.linux.supplemental_groups) == groups


def test_masked_and_read_only_paths(kubelet: Kubelet) -> None:
    asked = linux(masked_paths=["/proc/version"], readonly_paths=["/proc/sys"])
    script = "wc -c </proc/version; echo 1 >/proc/sys/kernel/panic || echo refused"
    output = said_by(kubelet, "runc", script, linux=asked)
    assert "0" in output
    assert "refused" in output


@pytest.mark.parametrize("handler", HANDLERS)
def test_privileged_containers_run(kubelet: Kubelet, handler: str) -> None:
    config = kubelet.pod_config(
        linux=api_pb2.LinuxPodSandboxConfig(
            security_context=api_pb2.LinuxSandboxSecurityContext(privileged=True)
        )
    )
    pod = kubelet.run(config, handler)
    script = "mkdir -p /m && mount -t tmpfs none /m && echo mounted; exec sleep 1000"
    kubelet.run_container(pod, config, "main", script, linux=linux(privileged=True))
    wait_until(lambda: kubelet.log(config, "main") == ["mounted"], "a mount in a privileged container")


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("tty", [False, True])
def test_standard_input_and_terminal_do_not_stop_a_container(
    kubelet: Kubelet, handler: str, tty: bool
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "main", "echo up; cat", stdin=True, tty=tty)
    wait_until(lambda: [line.strip() for line in kubelet.log(config, "main")] == ["up"], "its word")
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_pod_uses_the_nodes_network(kubelet: Kubelet, handler: str) -> None:
    options = api_pb2.NamespaceOption(network=api_pb2.NamespaceMode.NODE, pid=api_pb2.NamespaceMode.CONTAINER)
    config = kubelet.pod_config(
        linux=api_pb2.LinuxPodSandboxConfig(
            security_context=api_pb2.LinuxSandboxSecurityContext(namespace_options=options)
        )
    )
    pod = kubelet.run(config, handler)
    asked = linux(namespace_options=options)
    container = kubelet.run_container(pod, config, "main", "cat /proc/net/dev", linux=asked)
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")
    assert any("nrct" in line for line in kubelet.log(config, "main"))


@pytest.mark.parametrize("handler", ["theirs", *HANDLERS])
@pytest.mark.parametrize("network", [api_pb2.POD, api_pb2.NODE])
def test_hostname_is_the_nodes_unless_requested(
    kubelet: Kubelet, handler: str, network: api_pb2.NamespaceMode
) -> None:
    options = api_pb2.NamespaceOption(network=network, pid=api_pb2.CONTAINER)
    context = api_pb2.LinuxSandboxSecurityContext(namespace_options=options)
    pod = kubelet.pod_config(linux=api_pb2.LinuxPodSandboxConfig(security_context=context))
    pod.hostname = ""
    script = "hostname; echo $HOSTNAME; cat /etc/hostname"
    said = said_by(kubelet, handler, script, pod=pod, linux=linux(namespace_options=options))
    assert said == [socket.gethostname()] * 3


@pytest.mark.parametrize("handler", ["theirs", *HANDLERS])
@pytest.mark.parametrize(
    ("dns", "content"), [(None, Path("/etc/resolv.conf").read_text()), (api_pb2.DNSConfig(), "")]
)
def test_only_a_pod_without_dns_settings_has_the_nodes(
    kubelet: Kubelet, handler: str, dns: api_pb2.DNSConfig | None, content: str
) -> None:
    pod = kubelet.pod_config()
    pod.ClearField("dns_config")
    pod.MergeFrom(api_pb2.PodSandboxConfig(dns_config=dns))
    assert said_by(kubelet, handler, "cat /etc/resolv.conf", pod=pod) == content.splitlines()


@pytest.mark.parametrize("handler", HANDLERS)
def test_containers_that_share_processes_see_each_other(kubelet: Kubelet, handler: str) -> None:
    options = api_pb2.NamespaceOption(pid=api_pb2.NamespaceMode.POD)
    config = kubelet.pod_config(
        linux=api_pb2.LinuxPodSandboxConfig(
            security_context=api_pb2.LinuxSandboxSecurityContext(namespace_options=options)
        )
    )
    pod = kubelet.run(config, handler)
    asked = linux(namespace_options=options)
    kubelet.run_container(pod, config, "first", "exec sleep 4321", linux=asked)
    second = kubelet.run_container(pod, config, "second", "exec sleep 1000", linux=asked)
    assert b"4321" in kubelet.exec(second, "cat /proc/[0-9]*/cmdline").stdout


@pytest.mark.parametrize("handler", HANDLERS)
def test_limits_are_set_and_changed(kubelet: Kubelet, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    limits = api_pb2.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_shares=512)
    container = kubelet.run_container(
        pod, config, "main", "exec sleep 1000", linux=api_pb2.LinuxContainerConfig(resources=limits)
    )
    limits.memory_limit_in_bytes = 96 << 20
    kubelet.runtime.UpdateContainerResources(
        api_pb2.UpdateContainerResourcesRequest(container_id=container, linux=limits)
    )
    assert kubelet.status(container).resources.linux.memory_limit_in_bytes == 96 << 20


def cgroup_files(kubelet: Kubelet, container: str) -> Callable[[str, str], str]:
    """Read files of a container's cgroup by their names in cgroup v1 and v2."""
    groups = Path(f"/proc/{kubelet.status_info(container)['pid']}/cgroup").read_text().splitlines()
    places = {
        name: path for _, names, path in (one.split(":", 2) for one in groups) for name in names.split(",")
    }

    def read(first: str, second: str) -> str:
        controller = first.partition(".")[0]
        if controller in places:
            return Path(f"/sys/fs/cgroup/{controller}{places[controller]}/{first}").read_text().strip()
        return Path(f"/sys/fs/cgroup{places['']}/{second}").read_text().strip()

    return read


def test_every_limit_reaches_the_kernel_and_can_change(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    limits = api_pb2.LinuxContainerResources(
        memory_limit_in_bytes=64 << 20, cpu_shares=512, cpu_period=50_000, cpu_quota=25_000, cpuset_cpus="0"
    )
    container = kubelet.run_container(
        pod, config, "main", "exec sleep 1000", linux=api_pb2.LinuxContainerConfig(resources=limits)
    )
    read = cgroup_files(kubelet, container)
    assert read("memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert read("cpuset.cpus", "cpuset.cpus") == "0"
    assert read("cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    kubelet.update(container, memory_limit_in_bytes=128 << 20, cpu_quota=-1)
    assert read("memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert read("cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")
    assert read("cpuset.cpus", "cpuset.cpus") == "0"
    linux = kubelet.status(container).resources.linux
    assert (linux.memory_limit_in_bytes, linux.cpu_quota, linux.cpu_shares) == (128 << 20, -1, 512)
    resources = kubelet.status_info(container)["runtimeSpec"]["linux"]["resources"]
    assert (resources["memory"]["limit"], resources["cpu"]["quota"]) == (128 << 20, -1)
    with pytest.raises(grpc.RpcError, match="cpu_shares") as refused:
        kubelet.update(container, cpu_shares=-5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("handler", HANDLERS)
def test_limits_of_an_ended_container_are_recorded(kubelet: Kubelet, handler: str) -> None:
    config = kubelet.pod_config()
    container = kubelet.run_container(kubelet.run(config, handler), config, "main", "exit 3")
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")
    kubelet.update(container, memory_limit_in_bytes=32 << 20)
    status = kubelet.status(container)
    assert (status.exit_code, status.resources.linux.memory_limit_in_bytes) == (3, 32 << 20)


def test_a_limit_below_the_usage_is_rejected_without_a_kill(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    limits = api_pb2.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
    script = "head -c 24m /dev/zero >/dev/shm/x; echo full; exec sleep 1000"
    container = kubelet.run_container(
        pod, config, "main", script, linux=api_pb2.LinuxContainerConfig(resources=limits)
    )
    wait_until(lambda: kubelet.log(config, "main") == ["full"], "24 MiB in use")
    with pytest.raises(grpc.RpcError, match="memory"):
        kubelet.update(container, memory_limit_in_bytes=4 << 20)
    status = kubelet.status(container)
    assert status.state == api_pb2.CONTAINER_RUNNING
    assert status.resources.linux.memory_limit_in_bytes == 64 << 20


def test_processes_are_limited_by_the_pods_cgroup(kubelet: Kubelet, daemon: Daemon) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    script = """
        until test -e /dev/shm/go; do sleep 0.05; done
        for one in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all
    """
    kubelet.run_container(pod, config, "main", script)
    hierarchy = Path("/sys/fs/cgroup/pids")
    group = (hierarchy if hierarchy.is_dir() else hierarchy.parent) / config.linux.cgroup_parent.lstrip("/")
    (group / "pids.max").write_text("8")
    (daemon.run / "sandboxes" / pod / "shm/go").touch()
    wait_until(lambda: kubelet.log(config, "main") != [], "its word")
    assert "can't fork" in kubelet.log(config, "main")[-1]


def test_memory_beyond_the_limit_is_an_oom_kill(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    limits = api_pb2.LinuxContainerResources(memory_limit_in_bytes=16 << 20)
    container = kubelet.run_container(
        pod, config, "main", "tail /dev/zero", linux=api_pb2.LinuxContainerConfig(resources=limits)
    )
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")
    ended = kubelet.status(container)
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
