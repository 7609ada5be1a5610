import os
from dataclasses import replace

import pytest
from fakes import pod_config

from noderuntime.config import NetworkConfig
from noderuntime.core.errors import Internal
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.pods.run import run_pod_sandbox

PORTS, ICMP = "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"
DEFAULTS = {PORTS: "0", ICMP: "0 2147483647"}


async def sysctls_after_run(node, sysctls=None, *, network=api_pb2.POD, userns=False):
    """Run a pod, and return the sysctls that were set in its namespaces."""
    config = pod_config()
    config.linux.sysctls.update(sysctls or {})
    options = config.linux.security_context.namespace_options
    options.network = network
    if userns:
        options.userns_options.mode = api_pb2.POD
        options.userns_options.uids.add(host_id=os.getuid(), length=1000)
        options.userns_options.gids.add(host_id=os.getgid(), length=1000)
    await run_pod_sandbox(node.parts, config, "runc")
    return node.world.sysctls


async def test_pods_get_unprivileged_ports_and_ping(node):
    assert await sysctls_after_run(node) == DEFAULTS


async def test_requested_sysctls_win_over_defaults(node):
    requested = {PORTS: "80", ICMP: "1 0", "kernel.shm_rmid_forced": "1"}
    assert await sysctls_after_run(node, requested) == requested


async def test_host_network_pod_gets_no_default_sysctls(node):
    assert await sysctls_after_run(node, network=api_pb2.NODE) == {}


async def test_userns_pod_gets_no_ping_group_range(node):
    assert await sysctls_after_run(node, userns=True) == {PORTS: "0"}


async def test_daemon_in_a_userns_sets_no_ping_group_range(node):
    node.parts.facts = replace(node.parts.facts, maps_all_groups=False)
    assert await sysctls_after_run(node) == {PORTS: "0"}


@pytest.mark.parametrize(
    ("key", "left"), [("enable_unprivileged_ports", {ICMP}), ("enable_unprivileged_icmp", {PORTS})]
)
async def test_default_sysctls_can_be_disabled(node, key, left):
    network = NetworkConfig.model_validate({key: False})
    node.parts.config = node.parts.config.model_copy(update={"network": network})
    assert set(await sysctls_after_run(node)) == left


async def test_sysctls_of_the_interface_are_set_after_add(node):
    requested = {"net.ipv4.conf.eth0.rp_filter": "2"}
    assert await sysctls_after_run(node, requested) == DEFAULTS | requested
    assert node.world.trace.index("pin") < node.world.trace.index("attach")
    assert node.world.trace.index("attach") < node.world.trace.index("set sysctls")


async def test_failed_sysctl_of_the_interface_leaves_nothing(node):
    node.world.fail.add("set sysctls")
    with pytest.raises(Internal, match="set sysctls fails"):
        await sysctls_after_run(node, {"net.ipv4.conf.eth0.rp_filter": "many"})
    assert not node.left()
