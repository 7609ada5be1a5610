import asyncio
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fakes import container_config, pod_config

from noderuntime.core.errors import AlreadyExists, HostError, Internal, InvalidArgument, NotFound
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.containers.list import list_containers
from noderuntime.lifecycle.containers.start import start_container
from noderuntime.lifecycle.containers.stats import list_container_stats
from noderuntime.lifecycle.pods.container_events import container_events
from noderuntime.lifecycle.pods.list import list_pod_sandboxes
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.root import root_ended
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.status import pod_sandbox_status
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox
from noderuntime.lifecycle.pods.update import update_pod_sandbox_resources


def host_pod(**fields):
    config = pod_config(**fields)
    options = config.linux.security_context.namespace_options
    options.network = options.ipc = options.pid = api_pb2.NODE
    return config


def shared_pod():
    config = pod_config()
    config.linux.security_context.namespace_options.pid = api_pb2.POD
    return config


def hidden_pod():
    """A pod with a user namespace, whose root is whoever runs the tests."""
    config = pod_config()
    options = config.linux.security_context.namespace_options.userns_options
    options.mode = api_pb2.POD
    options.uids.add(host_id=os.getuid(), length=1000)
    options.gids.add(host_id=os.getgid(), length=1000)
    return config


def hidden_container(name="app", **fields):
    config = container_config(name, **fields)
    options = hidden_pod().linux.security_context.namespace_options
    config.linux.security_context.namespace_options.CopyFrom(options)
    return config


async def test_stopped_and_removed_pod_leaves_nothing(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(labels={"a": "b"}), "runc")
    status = pod_sandbox_status(node.parts, sandbox).status
    assert status.state == api_pb2.SANDBOX_READY
    assert (status.network.ip, status.network.additional_ips[0].ip) == ("10.0.0.2", "fd00::2")
    assert status.runtime_handler == "runc"
    assert not node.world.processes, "a runc pod that shares no processes has none of its own"

    await stop_pod_sandbox(node.parts, sandbox)
    status = pod_sandbox_status(node.parts, sandbox).status
    assert (status.state, status.network.ip) == (api_pb2.SANDBOX_NOTREADY, "")
    assert not node.world.left()

    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()
    with pytest.raises(NotFound):
        pod_sandbox_status(node.parts, sandbox)


@pytest.mark.parametrize(("config", "handler"), [(shared_pod(), "runc"), (pod_config(), "gvisor")])
async def test_root_container_is_created_where_needed(node, config, handler):
    sandbox = await run_pod_sandbox(node.parts, config, handler)
    assert node.world.runtime[sandbox].started
    assert node.world.trace.index("attach") < node.world.trace.index("start")
    await stop_pod_sandbox(node.parts, sandbox)
    assert not node.world.left()
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_host_network_pod_has_no_pins(node):
    sandbox = await run_pod_sandbox(node.parts, host_pod(), "runc")
    assert not node.world.left()
    assert pod_sandbox_status(node.parts, sandbox).status.network.ip == ""
    await remove_pod_sandbox(node.parts, sandbox)
    assert "detach" not in node.world.trace
    assert not node.left()


async def test_user_namespace_is_pinned_and_released(node):
    sandbox = await run_pod_sandbox(node.parts, hidden_pod(), "runc")
    assert node.parts.paths.sandbox(sandbox).user in node.world.pins
    container = await create_container(node.parts, sandbox, hidden_container())
    assert f"give stdio to {os.getuid()}" in node.world.trace
    await start_container(node.parts, container)
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


@pytest.mark.parametrize("step", ["mount", "pin", "attach", "mount!", "pin!", "attach!"])
async def test_failed_run_leaves_no_user_namespace(node, step):
    node.world.fail.add(step)
    with pytest.raises(Internal):
        await run_pod_sandbox(node.parts, hidden_pod(), "runc")
    assert not node.left()


async def test_run_refuses_userns_the_handler_does_not_support(node):
    with pytest.raises(InvalidArgument, match="gvisor does not support user namespaces"):
        await run_pod_sandbox(node.parts, hidden_pod(), "gvisor")
    assert node.world.trace == []


async def test_create_refuses_mounts_the_handler_cannot_make(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    ids = [api_pb2.IDMapping(length=1)]
    recursive = api_pb2.Mount(container_path="/a", host_path="/", readonly=True, recursive_read_only=True)
    mapped = api_pb2.Mount(container_path="/a", host_path="/", uidMappings=ids, gidMappings=ids)
    with pytest.raises(InvalidArgument, match="RROUnsupported"):
        await create_container(node.parts, sandbox, container_config(mounts=[recursive]))
    with pytest.raises(InvalidArgument, match="mapped IDs"):
        await create_container(node.parts, sandbox, container_config(mounts=[mapped]))
    assert not node.world.snapshots


async def test_stop_and_remove_are_idempotent(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    await asyncio.gather(*(stop_pod_sandbox(node.parts, sandbox) for _ in range(3)))
    assert node.world.trace.count("detach") == 1
    await asyncio.gather(*(remove_pod_sandbox(node.parts, sandbox) for _ in range(3)))
    await stop_pod_sandbox(node.parts, sandbox)
    await remove_pod_sandbox(node.parts, sandbox)


async def test_remove_stops_and_removes_the_containers(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    for name in ("one", "two"):
        container = await create_container(node.parts, sandbox, container_config(name))
        await start_container(node.parts, container)
    await create_container(node.parts, sandbox, container_config("never-started"))
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


@pytest.mark.parametrize("late", ["", "!"])
@pytest.mark.parametrize("handler", ["runc", "gvisor"])
@pytest.mark.parametrize("step", ["mount", "pin", "attach", "create", "start"])
async def test_failure_at_any_step_leaves_nothing(node, step, handler, late):
    node.world.fail.add(step + late)
    if handler == "runc" and step in ("create", "start"):
        await run_pod_sandbox(node.parts, pod_config(), handler)
        return
    with pytest.raises(Internal, match=f"{step} fails"):
        await run_pod_sandbox(node.parts, pod_config(), handler)
    assert not node.left()
    node.world.fail.clear()
    assert await run_pod_sandbox(node.parts, pod_config(), handler)


async def test_failed_undo_leaves_a_container_to_remove(node):
    node.world.fail |= {"attach!", "detach"}
    with pytest.raises(Internal, match="attach fails late"):
        await run_pod_sandbox(node.parts, pod_config(), "runc")
    (listed,) = list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())
    assert listed.state == api_pb2.SANDBOX_NOTREADY
    with pytest.raises(Internal):
        await stop_pod_sandbox(node.parts, listed.id)
    node.world.fail.clear()
    await remove_pod_sandbox(node.parts, listed.id)
    assert not node.left()


async def test_retry_gets_the_sandbox_of_a_cancelled_call(node):
    node.world.hold["attach"] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await node.world.held.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter()) == []
    retry = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    node.world.hold["attach"].set()
    sandbox = await retry
    assert [s.id for s in list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())] == [sandbox]
    assert node.world.trace.count("attach") == 1


async def test_kept_result_is_returned_to_one_retry_only(node):
    node.world.hold["attach"] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await node.world.held.wait()
    call.cancel()
    node.world.hold.pop("attach").set()
    await node.parts.work.drain(5)
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    assert node.world.trace.count("attach") == 1
    with pytest.raises(AlreadyExists, match=sandbox):
        await run_pod_sandbox(node.parts, pod_config(), "runc")


async def test_retry_does_not_get_a_removed_sandbox(node):
    node.world.hold["attach"] = asyncio.Event()
    call = asyncio.create_task(run_pod_sandbox(node.parts, pod_config(), "runc"))
    await node.world.held.wait()
    call.cancel()
    node.world.hold.pop("attach").set()
    await node.parts.work.drain(5)
    (first,) = list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter())
    await remove_pod_sandbox(node.parts, first.id)
    assert await run_pod_sandbox(node.parts, pod_config(), "runc") != first.id


async def test_another_attempt_creates_another_sandbox(node):
    await run_pod_sandbox(node.parts, pod_config(), "runc")
    with pytest.raises(AlreadyExists):
        await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    again = pod_config()
    again.metadata.attempt = 1
    await run_pod_sandbox(node.parts, again, "runc")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.metadata.ClearField("name"),
        lambda c: setattr(c.metadata, "name", "x" * 10_000),
        lambda c: setattr(c, "hostname", "two words"),
        lambda c: setattr(c, "hostname", "x" * 65),
        lambda c: c.dns_config.servers.append("1.1.1.1\nsearch evil"),
        lambda c: setattr(c, "log_directory", "relative"),
        lambda c: setattr(c, "log_directory", "/logs/../../etc"),
        lambda c: setattr(c, "log_directory", "/logs/" + "x" * 256),
        lambda c: setattr(c, "log_directory", "/x" * 2100),
        lambda c: c.port_mappings.add(host_port=80, container_port=0),
        lambda c: c.port_mappings.add(host_port=70000, container_port=80),
        lambda c: c.port_mappings.add(host_port=80, container_port=-1),
        lambda c: c.port_mappings.add(host_port=80, container_port=80, host_ip="1.2.3"),
        lambda c: setattr(c.metadata, "uid", "a;K8S_POD_NAME=b"),
        lambda c: setattr(c.linux.security_context.selinux_options, "level", "secret"),
        lambda c: setattr(c.linux, "cgroup_parent", "/kubepods/../../etc"),
        lambda c: setattr(c.linux.resources, "cpu_shares", -1),
        lambda c: setattr(c.linux.overhead, "cpuset_cpus", "all"),
    ],
)
async def test_invalid_config_is_refused_before_any_step(node, spoil):
    config = pod_config()
    spoil(config)
    with pytest.raises(InvalidArgument):
        await run_pod_sandbox(node.parts, config, "runc")
    assert node.world.trace == []


async def test_error_of_an_unknown_handler_names_the_known_ones(node):
    with pytest.raises(InvalidArgument, match="gvisor, runc"):
        await run_pod_sandbox(node.parts, pod_config(), "kata")


async def test_sandbox_files_have_dns_and_hostname(node):
    dns = api_pb2.DNSConfig(servers=["10.96.0.10"], searches=["a.local", "b"], options=["ndots:5"])
    sandbox = await run_pod_sandbox(node.parts, pod_config(hostname="web-1", dns_config=dns), "runc")
    paths = node.parts.paths.sandbox(sandbox)
    assert paths.resolv_conf.read_text() == "search a.local b\nnameserver 10.96.0.10\noptions ndots:5\n"
    assert paths.hostname.read_text() == "web-1\n"


@pytest.mark.parametrize(
    ("dns", "content"), [(None, Path("/etc/resolv.conf").read_text()), (api_pb2.DNSConfig(), "")]
)
async def test_only_a_pod_without_dns_settings_has_the_nodes(node, dns, content):
    sandbox = await run_pod_sandbox(node.parts, pod_config(dns_config=dns), "runc")
    assert node.parts.paths.sandbox(sandbox).resolv_conf.read_text() == content


async def test_new_limits_of_a_pod_are_recorded(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    limits = api_pb2.LinuxContainerResources
    overhead, resources = limits(cpu_shares=5), limits(memory_limit_in_bytes=1 << 30)
    await update_pod_sandbox_resources(node.parts, sandbox, overhead, resources)
    with pytest.raises(InvalidArgument):
        await update_pod_sandbox_resources(node.parts, sandbox, overhead, limits(cpu_period=-7))
    await node.restart()
    info = json.loads(pod_sandbox_status(node.parts, sandbox, verbose=True).info["info"])
    assert info["overhead"] == {"cpuShares": "5"}
    assert info["resources"] == {"memoryLimitInBytes": str(1 << 30)}
    with pytest.raises(NotFound):
        await update_pod_sandbox_resources(node.parts, "a" * 64, overhead, resources)


async def test_limits_stay_if_they_cannot_be_recorded(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    limits = api_pb2.LinuxContainerResources(cpu_shares=5)
    with closing(sqlite3.connect(node.directory / "state/ledger.db")) as ledger:
        ledger.execute("ALTER TABLE sandboxes RENAME TO full")
        with pytest.raises(HostError, match="writing the ledger"):
            await update_pod_sandbox_resources(node.parts, sandbox, limits, limits)
        ledger.execute("ALTER TABLE full RENAME TO sandboxes")
    info = json.loads(pod_sandbox_status(node.parts, sandbox, verbose=True).info["info"])
    assert (info["overhead"], info["resources"]) == ({}, {})


async def test_list_returns_sandboxes_that_match_the_filter(node):
    one = await run_pod_sandbox(node.parts, pod_config("one", labels={"app": "x", "n": "1"}), "runc")
    two = await run_pod_sandbox(node.parts, pod_config("two", labels={"app": "x", "n": "2"}), "runc")
    await stop_pod_sandbox(node.parts, two)

    def ids(**wanted):
        return {s.id for s in list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter(**wanted))}

    assert ids() == {one, two}
    assert ids(id=one) == ids(id=one[:20]) == {one}
    assert ids(id="none") == set()
    assert ids(label_selector={"app": "x"}) == {one, two}
    assert ids(label_selector={"app": "x", "n": "2"}) == {two}
    ready = api_pb2.PodSandboxStateValue(state=api_pb2.SANDBOX_READY)
    assert ids(state=ready) == {one}
    assert ids(state=ready, label_selector={"n": "2"}) == set()


async def test_ambiguous_prefix_in_a_filter_is_refused(node):
    made = [await run_pod_sandbox(node.parts, pod_config(f"pod{number}"), "runc") for number in range(17)]
    first = [sandbox[0] for sandbox in made]
    prefix = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(InvalidArgument, match=f"sandbox ID prefix {prefix} is ambiguous"):
        list_pod_sandboxes(node.parts, api_pb2.PodSandboxFilter(id=prefix))
    with pytest.raises(InvalidArgument, match="is ambiguous"):
        await list_container_stats(node.parts, api_pb2.ContainerStatsFilter(pod_sandbox_id=prefix))
    with pytest.raises(InvalidArgument, match="is ambiguous"):
        list_containers(node.parts, api_pb2.ContainerFilter(pod_sandbox_id=prefix))


async def test_sandbox_whose_process_ends_is_not_ready(node):
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    node.world.exit(sandbox, 1)
    await root_ended(node.parts, node.parts.ledger.sandboxes.get(sandbox))
    assert pod_sandbox_status(node.parts, sandbox).status.state == api_pb2.SANDBOX_NOTREADY
    await remove_pod_sandbox(node.parts, sandbox)
    assert not node.left()


async def test_events_cover_the_whole_life_of_a_pod(node):
    events = container_events(node.parts)
    first = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    sandbox = await run_pod_sandbox(node.parts, pod_config(), "runc")
    container = await create_container(node.parts, sandbox, container_config())
    await start_container(node.parts, container)
    await remove_pod_sandbox(node.parts, sandbox)
    reported = [await first] + [await anext(events) for _ in range(7)]
    await events.aclose()
    assert all(one.pod_sandbox_status.metadata.uid == "uid-web" for one in reported), "also of what is gone"
    assert reported[-1].pod_sandbox_status.state == api_pb2.SANDBOX_NOTREADY
    assert [one.id for one in reported[3].containers_statuses] == [container]
    kinds = [
        (api_pb2.ContainerEventType.Name(e.container_event_type).split("_")[1], e.container_id == sandbox)
        for e in reported
    ]
    assert kinds == [
        ("CREATED", True),
        ("STARTED", True),
        ("CREATED", False),
        ("STARTED", False),
        ("STOPPED", True),
        ("STOPPED", False),
        ("DELETED", False),
        ("DELETED", True),
    ]
