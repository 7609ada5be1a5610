import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.network.capabilities import capability_args, cni_args


def test_a_plain_pod_asks_for_nothing(pod):
    assert capability_args(pod) == {}


def test_host_ports_are_mapped_and_others_left_out(pod):
    pod.port_mappings.add(protocol=api_pb2.UDP, container_port=53, host_port=5353, host_ip="127.0.0.1")
    pod.port_mappings.add(container_port=80, host_port=8080)
    pod.port_mappings.add(container_port=443)
    assert capability_args(pod)["portMappings"] == [
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    ]


def test_dns_and_annotations_and_cgroup_go_along(pod):
    pod.dns_config.servers.append("10.96.0.10")
    pod.dns_config.options.append("ndots:5")
    pod.annotations["team"] = "blue"
    pod.linux.cgroup_parent = "/kubepods/pod1"
    assert capability_args(pod) == {
        "dns": {"servers": ["10.96.0.10"], "options": ["ndots:5"]},
        "io.kubernetes.cri.pod-annotations": {"team": "blue"},
        "cgroupPath": "/kubepods/pod1",
    }


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10M", 10_000_000), ("1Gi", 1 << 30), ("1.5k", 1500), ("2e6", 2_000_000), ("1000000m", 1000)],
)
def test_rates_are_kubernetes_quantities(pod, text, rate):
    pod.annotations["kubernetes.io/ingress-bandwidth"] = text
    assert capability_args(pod)["bandwidth"] == {"ingressRate": rate, "ingressBurst": (1 << 32) - 1}


@pytest.mark.parametrize("text", ["", "fast", "10", "2P", "-1M", "1X", "1e99", "9" * 500, "NaN", "1M\n2M"])
def test_rates_without_sense_are_refused(pod, text):
    pod.annotations["kubernetes.io/egress-bandwidth"] = text
    with pytest.raises(InvalidArgument, match="egress-bandwidth"):
        capability_args(pod)


def test_cni_args_name_the_pod(pod):
    assert cni_args("5b", pod) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=5b;K8S_POD_UID=u-1"
    )


def test_a_pod_cannot_smuggle_in_further_arguments(pod):
    pod.metadata.name = "web;IP=10.0.0.1"
    with pytest.raises(InvalidArgument, match="K8S_POD_NAME"):
        cni_args("5b", pod)
