"""The sysctls of pods, seen from inside them. containerd's own pods get the same (handler ``theirs``)."""

from __future__ import annotations

import subprocess

import grpc
import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet
from realnode.scripts import linux, said_by

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["theirs", "runc", "crun"]
SHOW = "cd /proc/sys/net/ipv4; echo $(cat ip_unprivileged_port_start); echo $(cat ping_group_range)"
OPEN = ["0", "0 2147483647"]
ETH0 = "net.ipv4.conf.eth0.arp_notify"


def pod_with(
    kubelet: Kubelet, sysctls: dict[str, str], options: api_pb2.NamespaceOption | None = None
) -> api_pb2.PodSandboxConfig:
    """Return a pod's config."""
    context = api_pb2.LinuxSandboxSecurityContext(
        namespace_options=options or api_pb2.NamespaceOption(pid=api_pb2.CONTAINER)
    )
    return kubelet.pod_config(linux=api_pb2.LinuxPodSandboxConfig(sysctls=sysctls, security_context=context))


def said_in_userns(kubelet: Kubelet, handler: str, sysctls: dict[str, str], script: str) -> list[str]:
    """Run a script in a pod with a user namespace."""
    ids = [api_pb2.IDMapping(host_id=1_000_000, length=65536)]
    options = api_pb2.NamespaceOption(
        pid=api_pb2.CONTAINER, userns_options=api_pb2.UserNamespace(mode=api_pb2.POD, uids=ids, gids=ids)
    )
    pod = pod_with(kubelet, sysctls, options)
    return said_by(kubelet, handler, script, pod=pod, linux=linux(namespace_options=options))


@pytest.mark.parametrize("handler", HANDLERS)
def test_every_user_can_listen_on_low_ports_and_ping(kubelet: Kubelet, handler: str) -> None:
    assert said_by(kubelet, handler, SHOW) == OPEN


@pytest.mark.parametrize("handler", ["theirs", "runc", "crun", "gvisor"])
def test_a_user_without_capabilities_listens_on_port_80(kubelet: Kubelet, handler: str) -> None:
    asked = linux(
        run_as_user=api_pb2.Int64Value(value=1234),
        run_as_group=api_pb2.Int64Value(value=2345),
        capabilities=api_pb2.Capability(drop_capabilities=["ALL"]),
    )
    script = "timeout 1 nc -l -p 80; echo $?"
    assert "143" in said_by(kubelet, handler, script, linux=asked), "it listened until SIGTERM"


@pytest.mark.parametrize("handler", HANDLERS)
def test_requested_values_win_over_the_defaults(kubelet: Kubelet, handler: str) -> None:
    sysctls = {"net.ipv4.ip_unprivileged_port_start": "80", "net.ipv4.ping_group_range": "5 7"}
    assert said_by(kubelet, handler, SHOW, pod=pod_with(kubelet, sysctls)) == ["80", "5 7"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_nodes_network_gets_no_defaults(kubelet: Kubelet, handler: str) -> None:
    node = subprocess.run(["sh", "-c", SHOW], check=True, capture_output=True, text=True).stdout.splitlines()
    options = api_pb2.NamespaceOption(network=api_pb2.NODE, pid=api_pb2.CONTAINER)
    pod = pod_with(kubelet, {}, options)
    pod.hostname = ""
    said = said_by(kubelet, handler, SHOW, pod=pod, linux=linux(namespace_options=options))
    assert said == node


def test_a_user_namespace_gets_only_the_ports(kubelet: Kubelet) -> None:
    assert said_in_userns(kubelet, "runc", {}, SHOW) == ["0", "65534 65534"]


def test_the_defaults_can_be_switched_off(kubelet: Kubelet, daemon: Daemon) -> None:
    drop_in = daemon.config.parent / "conf.d/sysctls.toml"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[network]\nenable_unprivileged_ports = false\nenable_unprivileged_icmp = false\n")
    try:
        daemon.stop()
        daemon.start()
        assert said_by(kubelet, "runc", SHOW) == ["1024", "1 0"]
    finally:
        drop_in.unlink()
        daemon.stop()
        daemon.start()


@pytest.mark.parametrize("handler", HANDLERS)
def test_sysctls_of_the_pods_interface_are_set(kubelet: Kubelet, handler: str) -> None:
    pod = pod_with(kubelet, {ETH0: "1"})
    assert said_by(kubelet, handler, "cat /proc/sys/net/ipv4/conf/eth0/arp_notify", pod=pod) == ["1"]


def test_sysctls_of_the_interface_are_set_in_a_userns(kubelet: Kubelet) -> None:
    script = "cat /proc/sys/net/ipv4/conf/eth0/arp_notify"
    assert said_in_userns(kubelet, "runc", {ETH0: "1"}, script) == ["1"]


@pytest.mark.parametrize("handler", ["runc", "gvisor"])
@pytest.mark.parametrize(
    ("sysctl", "value"), [(ETH0, "many"), ("net.ipv4.conf.eth9.arp_notify", "1")], ids=["value", "interface"]
)
def test_an_invalid_sysctl_of_an_interface_leaves_nothing(
    kubelet: Kubelet, handler: str, sysctl: str, value: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        kubelet.run(pod_with(kubelet, {sysctl: value}), handler)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"sysctl {sysctl} cannot be set to '{value}'" in str(refused.value.details())
    assert kubelet.pods() == set()


def test_sysctls_of_the_nodes_interfaces_are_refused(kubelet: Kubelet) -> None:
    options = api_pb2.NamespaceOption(network=api_pb2.NODE, pid=api_pb2.CONTAINER)
    with pytest.raises(grpc.RpcError, match="does not belong to a namespace of the pod") as refused:
        kubelet.run(pod_with(kubelet, {ETH0: "1"}, options), "runc")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("handler", HANDLERS)
def test_local_ports_are_in_the_requested_range(kubelet: Kubelet, handler: str) -> None:
    pod = pod_with(kubelet, {"net.ipv4.ip_local_port_range": "32000 32100"})
    said = said_by(kubelet, handler, "echo $(cat /proc/sys/net/ipv4/ip_local_port_range)", pod=pod)
    assert said == ["32000 32100"]
