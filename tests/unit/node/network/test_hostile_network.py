"""Input of files, plugins and pods is accepted, or refused with an error of one line."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noderuntime.core.errors import InvalidArgument, NoderuntimeError
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.network import conflist
from noderuntime.node.network.capabilities import capability_args, cni_args
from noderuntime.node.network.plugin import Kept, pod_ips

WORDS = st.sampled_from(["10.0.0.2/24", "eth0"])
KEYS = st.sampled_from(
    [
        "ips",
        "interfaces",
        "address",
        "interface",
        "name",
        "sandbox",
        "plugins",
        "type",
        "cniVersion",
        "disableGC",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


def check_refusal(error):
    assert "\n" not in str(error)
    assert len(str(error).encode()) < 2000


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING)
def test_parse_of_any_content_returns_or_refuses(content):
    try:
        network = conflist.parse(content)
    except InvalidArgument as error:
        check_refusal(error)
        return
    assert all("/" not in plugin["type"] for plugin in network.plugins)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["ips", "interfaces"]), ANYTHING))
def test_ips_of_any_result_are_returned_or_refused(result):
    try:
        assert pod_ips(result, "eth0")
    except NoderuntimeError as error:
        check_refusal(error)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=100) | ANYTHING.map(lambda content: json.dumps(content).encode()))
def test_any_bytes_from_the_ledger_are_read_or_refused(raw):
    try:
        Kept.from_bytes(raw)
    except InvalidArgument as error:
        check_refusal(error)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=30), st.text(max_size=30))
def test_arguments_of_any_pod_are_returned_or_refused(name, rate):
    pod = api_pb2.PodSandboxConfig()
    pod.metadata.name = name.encode("utf-8", "ignore").decode()
    pod.annotations["kubernetes.io/ingress-bandwidth"] = rate.encode("utf-8", "ignore").decode()
    try:
        assert cni_args("id", pod).count(";") == 4
        capability_args(pod)
    except InvalidArgument as error:
        check_refusal(error)
