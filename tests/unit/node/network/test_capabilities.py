import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.network.capabilities import capability_args, cni_args


def test_capabilities_of_a_plain_pod_are_empty(pod):
    assert capability_args(pod) == {}


def test_port_mappings_contain_host_ports_only(pod):
    pod.port_mappings.add(protocol=api_pb2.UDP, container_port=53, host_port=5353, host_ip="127.0.0.1")
    pod.port_mappings.add(container_port=80, host_port=8080)
    pod.port_mappings.add(container_port=443)
    assert capability_args(pod)["portMappings"] == [
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    ]


def test_capabilities_contain_dns_annotations_and_cgroup(pod):
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
def test_rate_is_a_kubernetes_quantity_in_bits_per_second(pod, text, rate):
    pod.annotations["kubernetes.io/ingress-bandwidth"] = text
    assert capability_args(pod)["bandwidth"] == {"ingressRate": rate, "ingressBurst": (1 << 32) - 1}


@pytest.mark.parametrize("text", ["", "fast", "10", "2P", "-1M", "1X", "1e99", "9" * 500, "NaN", "1M\n2M"])
def test_invalid_rate_is_refused(pod, text):
    pod.annotations["kubernetes.io/egress-bandwidth"] = text
    with pytest.raises(InvalidArgument, match="egress-bandwidth"):
        capability_args(pod)


def test_cni_args_identify_the_pod(pod):
    assert cni_args("5b", pod) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=5b;K8S_POD_UID=u-1"
    )


def test_cni_args_refuse_separators_in_metadata(pod):
    pod.metadata.name = "web;IP=10.0.0.1"
    with pytest.raises(InvalidArgument, match="K8S_POD_NAME"):
        cni_args("5b", pod)
