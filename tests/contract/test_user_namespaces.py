"""Pods with a user namespace (hostUsers: false), seen from inside and from the node."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest
from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.scripts import linux, said_by
from realnode.traces import netns_of

from noderuntime.cri.v1 import api_pb2

UID, GID, SIZE = 1_000_000, 2_000_000, 65536


def namespaces(pid: api_pb2.NamespaceMode = api_pb2.CONTAINER, **fields: object) -> api_pb2.NamespaceOption:
    """Return namespace options with a user namespace, as the kubelet requests it."""
    options = api_pb2.NamespaceOption(
        pid=pid,
        userns_options=api_pb2.UserNamespace(
            mode=api_pb2.POD,
            uids=[api_pb2.IDMapping(host_id=UID, container_id=0, length=SIZE)],
            gids=[api_pb2.IDMapping(host_id=GID, container_id=0, length=SIZE)],
        ),
    )
    options.MergeFrom(api_pb2.NamespaceOption(**fields))  # type: ignore[arg-type]
    return options


def pod_with(kubelet: Kubelet, options: api_pb2.NamespaceOption, **sysctls: str) -> api_pb2.PodSandboxConfig:
    """Return a pod's config."""
    return kubelet.pod_config(
        linux=api_pb2.LinuxPodSandboxConfig(
            security_context=api_pb2.LinuxSandboxSecurityContext(namespace_options=options),
            sysctls=sysctls,
        )
    )


def said_inside(
    kubelet: Kubelet, script: str, options: api_pb2.NamespaceOption | None = None, **fields: object
) -> list[str]:
    """Run a script in a pod with a user namespace and return its output."""
    options = options or namespaces()
    pod = pod_with(kubelet, options)
    return said_by(kubelet, "runc", script, pod=pod, linux=linux(namespace_options=options), **fields)


def test_root_inside_is_another_user_outside(kubelet: Kubelet) -> None:
    output = said_inside(kubelet, "cat /proc/self/uid_map /proc/self/gid_map; id -u; hostname")
    assert [line.split() for line in output] == [
        ["0", str(UID), str(SIZE)],
        ["0", str(GID), str(SIZE)],
        ["0"],
        ["life"],
    ]


def test_files_of_the_image_and_of_the_pod_belong_to_root_inside(kubelet: Kubelet) -> None:
    places = "/ /bin/busybox /etc/resolv.conf /etc/hostname /dev/shm /proc/self"
    output = said_inside(kubelet, f"for one in {places}; do stat -Lc '%n %u:%g' $one; done")
    assert output == [f"{one} 0:0" for one in places.split()]


def test_volumes_of_the_image_belong_to_their_owners_inside(kubelet: Kubelet, containerd: Containerd) -> None:
    containerd.import_image("noderuntime.test/owned:1", ["sh"], volumes=["/etc", "/made/for/it"])
    script = "stat -c %u:%g /etc /etc/passwd /made/for/it; echo x >/made/for/it/x && cat /made/for/it/x"
    output = said_inside(kubelet, script, image=api_pb2.ImageSpec(image="noderuntime.test/owned:1"))
    assert output == ["0:0", "0:0", "0:0", "x"]


def test_written_files_can_be_read_and_change_owner(kubelet: Kubelet) -> None:
    script = """
        set -e
        echo one >/made; chown 1000:1000 /made; stat -c %u:%g /made
        echo two >>/etc/resolv.conf
        echo three >/dev/shm/made; stat -c %u:%g /dev/shm/made
        chmod 711 /bin/busybox; stat -c %u:%g /bin/busybox
        echo four >/dev/stderr; echo five >/dev/stdout
    """
    assert sorted(said_inside(kubelet, script)) == ["0:0", "0:0", "1000:1000", "five", "four"]


def test_the_writable_layer_is_measured_and_removed(kubelet: Kubelet, daemon: Daemon) -> None:
    options = namespaces()
    config = pod_with(kubelet, options)
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(
        pod, config, "main", "echo x >/x; exec sleep 1000", linux=linux(namespace_options=options)
    )
    rootfs = daemon.run / "containers" / container / "rootfs"
    wait_until((rootfs / "x").exists, "the container's file")
    found = (rootfs / "x").stat()
    assert (found.st_uid, found.st_gid) == (UID, GID), "on the node they are the pod's own"
    assert (rootfs / "bin/busybox").stat().st_uid == UID
    assert kubelet.exec(container, "id -u >/dev/stdout").stdout == b"0\n"
    pid = int(kubelet.status_info(container)["pid"])
    assert os.stat(f"/proc/{pid}").st_uid == UID


def test_a_volume_is_mapped_as_requested(kubelet: Kubelet, tmp_path: Path) -> None:
    volume, plain = tmp_path / "volume", tmp_path / "plain"
    for directory in (volume, plain):
        directory.mkdir()
        (directory / "file").write_text("from the node\n")
        os.chown(directory / "file", 7, 8)
    options = namespaces()
    mounts = [
        api_pb2.Mount(
            container_path="/volume",
            host_path=str(volume),
            uidMappings=options.userns_options.uids,
            gidMappings=options.userns_options.gids,
        ),
        api_pb2.Mount(container_path="/plain", host_path=str(plain)),
    ]
    script = "stat -c %u:%g /volume/file /plain/file; echo new >/volume/new; stat -c %u:%g /volume/new"
    assert said_inside(kubelet, script, mounts=mounts) == ["7:8", "65534:65534", "0:0"]
    assert (volume / "new").stat().st_uid == 0, "what root inside writes to a mapped volume is root's"


def test_sysctls_are_set_by_root_inside(kubelet: Kubelet) -> None:
    options = namespaces()
    config = pod_with(kubelet, options)
    config.linux.sysctls.update(
        {"net.ipv4.ping_group_range": "0 65535", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "99"}
    )
    script = "cd /proc/sys; cat net/ipv4/ping_group_range kernel/shm_rmid_forced fs/mqueue/msg_max"
    output = said_by(kubelet, "runc", script, pod=config, linux=linux(namespace_options=options))
    assert [line.split() for line in output] == [["0", "65535"], ["1"], ["99"]]


def test_root_inside_can_configure_the_pods_network(kubelet: Kubelet) -> None:
    options = namespaces()
    asked = linux(namespace_options=options, capabilities=api_pb2.Capability(add_capabilities=["NET_ADMIN"]))
    pod = pod_with(kubelet, options)
    output = said_by(kubelet, "runc", "ip link set lo down && ip link show lo", pod=pod, linux=asked)
    assert "LOOPBACK" in output[0]
    assert "UP" not in output[0]


@pytest.mark.parametrize("processes", [api_pb2.CONTAINER, api_pb2.POD])
def test_a_user_namespace_with_the_nodes_network(kubelet: Kubelet, processes: api_pb2.NamespaceMode) -> None:
    options = namespaces(network=api_pb2.NODE, pid=processes)
    script = "cat /proc/self/uid_map; ls /sys/class/net; cat /proc/net/dev; touch /sys/x || echo fixed"
    output = said_inside(kubelet, script, options)
    assert str(UID) in output[0]
    assert any("nrct" in line for line in output)
    assert "fixed" in output


def test_shared_processes(kubelet: Kubelet) -> None:
    options = namespaces(pid=api_pb2.POD)
    config = pod_with(kubelet, options)
    pod = kubelet.run(config, "runc")
    asked = linux(namespace_options=options)
    kubelet.run_container(pod, config, "first", "exec sleep 4321", linux=asked)
    second = kubelet.run_container(pod, config, "second", "exec sleep 1000", linux=asked)
    assert b"4321" in kubelet.exec(second, "cat /proc/[0-9]*/cmdline").stdout
    assert kubelet.exec(second, "stat -c %u /proc/1").stdout == b"0\n"


def test_a_user_of_the_image_and_a_privileged_container(kubelet: Kubelet) -> None:
    options = namespaces()
    asked = linux(namespace_options=options, run_as_user=api_pb2.Int64Value(value=4000))
    pod = pod_with(kubelet, options)
    assert said_by(kubelet, "runc", "id -u; echo x >/dev/stdout", pod=pod, linux=asked) == ["4000", "x"]
    pod = pod_with(kubelet, options)
    pod.linux.security_context.privileged = True
    asked = linux(namespace_options=options, privileged=True)
    script = "mkdir /m; mount -t tmpfs none /m && echo mounted; test -c /dev/null && echo device"
    assert said_by(kubelet, "runc", script, pod=pod, linux=asked) == ["mounted", "device"]


def refused(kubelet: Kubelet, options: api_pb2.NamespaceOption, handler: str = "runc") -> str:
    """Try to run a pod and return the error."""
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.run(pod_with(kubelet, options), handler)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


def test_an_unsupported_user_namespace_is_rejected(kubelet: Kubelet) -> None:
    assert "gvisor does not support user namespaces" in refused(kubelet, namespaces(), "gvisor")
    assert "PID or IPC namespace" in refused(kubelet, namespaces(pid=api_pb2.NODE))
    twice = namespaces(userns_options=namespaces().userns_options)
    assert "one range" in refused(kubelet, twice)
    for mode in (api_pb2.CONTAINER, api_pb2.TARGET):
        alone = api_pb2.NamespaceOption(userns_options=api_pb2.UserNamespace(mode=mode))
        assert "must be POD or NODE" in refused(kubelet, alone)
    not_root = namespaces()
    not_root.userns_options.uids[0].container_id = 1
    assert "must start at container ID 0" in refused(kubelet, not_root)


def test_a_container_has_the_user_namespace_of_its_pod(kubelet: Kubelet) -> None:
    options = namespaces()
    config = pod_with(kubelet, options)
    pod = kubelet.run(config, "runc")
    others = namespaces()
    others.userns_options.uids[0].host_id = 0
    for asked in (linux(), linux(namespace_options=others)):
        with pytest.raises(grpc.RpcError, match="differs from its pod's"):
            kubelet.create(pod, config, "main", "true", linux=asked)
    asked = linux(namespace_options=options, run_as_user=api_pb2.Int64Value(value=70000))
    with pytest.raises(grpc.RpcError, match="user 70000 is not mapped"):
        kubelet.create(pod, config, "main", "true", linux=asked)


def test_a_pod_survives_a_restart_of_the_daemon(kubelet: Kubelet, daemon: Daemon) -> None:
    options = namespaces()
    config = pod_with(kubelet, options)
    pod = kubelet.run(config, "runc")
    asked = linux(namespace_options=options)
    kubelet.run_container(pod, config, "first", "exec sleep 1000", linux=asked)
    daemon.kill()
    daemon.start()
    second = kubelet.run_container(pod, config, "second", "exec sleep 1000", linux=asked)
    assert kubelet.exec(second, "stat -c %u:%g / /etc/hostname").stdout.split() == [b"0:0", b"0:0"]
    assert netns_of(pod).exists()
