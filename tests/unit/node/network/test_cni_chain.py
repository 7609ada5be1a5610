import json

import pytest

from noderuntime.core.errors import DeadlineExceeded, ToolError, Unavailable
from noderuntime.node.host.base import Completed
from noderuntime.node.network.cni import CniNetwork

CHAIN = {
    "name": "pods",
    "cniVersion": "1.0.0",
    "plugins": [
        {"type": "bridge", "ipam": {"type": "host-local"}},
        {"type": "portmap", "capabilities": {"portMappings": True, "bandwidth": False}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ],
}


@pytest.fixture
def network(host, conf_dir, plugin_dir, paths):
    (conf_dir / "10-pods.conflist").write_text(json.dumps(CHAIN))
    return CniNetwork(host, conf_dir, [plugin_dir], paths)


def failed(words, code=100):
    return Completed(1, json.dumps({"code": code, "msg": words, "details": "line 1\nline 2"}).encode(), b"")


async def test_add_passes_each_result_to_the_next_plugin(host, pod, netns, attach):
    pod.port_mappings.add(container_port=80, host_port=8080)
    attachment = await attach()
    assert attachment.ips == ("10.9.0.2",)
    assert host.order == [("ADD", "bridge"), ("ADD", "portmap"), ("ADD", "bandwidth")]
    (_, _, first, env), (_, _, second, _), (_, _, third, _) = host.calls
    assert first == {
        "type": "bridge",
        "ipam": {"type": "host-local"},
        "name": "pods",
        "cniVersion": "1.0.0",
    }
    assert second["prevResult"]["from"] == "bridge"
    assert second["runtimeConfig"] == {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    }
    assert third["prevResult"]["from"] == "portmap"
    assert "runtimeConfig" not in third
    assert env["CNI_NETNS"] == netns
    assert (env["CNI_CONTAINERID"], env["CNI_IFNAME"]) == ("5b", "eth0")
    assert "K8S_POD_NAME=web" in env["CNI_ARGS"]


@pytest.mark.parametrize(
    ("path", "passed"), [("/opt/bin", "/opt/bin"), ("", "/usr/sbin:/usr/bin:/sbin:/bin")]
)
async def test_plugins_get_the_environment_of_the_daemon(host, monkeypatch, path, passed, attach):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("CNI_COMMAND", "VERSION")
    monkeypatch.setenv("PATH", path)
    await attach()
    env = host.calls[0][3]
    assert env["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert (env["CNI_COMMAND"], env["PATH"]) == ("ADD", passed)


async def test_del_runs_backwards_with_configuration_and_result_of_add(
    network, host, conf_dir, pod, netns, attach
):
    attachment = await attach()
    host.calls.clear()
    (conf_dir / "10-pods.conflist").write_text(
        json.dumps({"name": "new", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]})
    )
    await network.detach("5b", netns, pod, attachment.result)
    assert host.order == [("DEL", "bandwidth"), ("DEL", "portmap"), ("DEL", "bridge")]
    assert {config["name"] for _, _, config, _ in host.calls} == {"pods"}
    assert {config["prevResult"]["from"] for _, _, config, _ in host.calls} == {"bandwidth"}


@pytest.mark.parametrize("refuses", [False, True])
async def test_del_restores_addresses_that_the_pod_removed(network, host, pod, netns, refuses, attach):
    attachment = await attach()
    host.refuses = refuses
    host.calls.clear()
    await network.detach("5b", netns, pod, attachment.result)
    assert host.restored == ([] if refuses else ["netns eth0 10.9.0.2/24"])
    assert len(host.order) == 3


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"network": {"name": "pods"}, "result": null}'])
async def test_del_without_a_readable_result_uses_the_current_network(network, host, pod, netns, damaged):
    await network.detach("5b", netns, pod, damaged)
    assert host.order == [("DEL", "bandwidth"), ("DEL", "portmap"), ("DEL", "bridge")]
    assert {config["name"] for _, _, config, _ in host.calls} == {"pods"}


async def test_del_without_a_namespace_passes_no_path(network, host, pod, tmp_path):
    await network.detach("5b", str(tmp_path / "gone"), pod, b"")
    assert [env["CNI_NETNS"] for *_, env in host.calls] == ["", "", ""]
    assert not any("prevResult" in config for _, _, config, _ in host.calls)


async def test_failed_add_is_undone_and_has_the_plugins_message(host, attach):
    host.answers["ADD", "portmap"] = failed("port 8080 is taken")
    with pytest.raises(ToolError) as caught:
        await attach()
    assert str(caught.value) == (
        "CNI plugin portmap ADD failed with exit status 1: port 8080 is taken: line 1 line 2"
    )
    assert host.order[2:] == [("DEL", "bandwidth"), ("DEL", "portmap"), ("DEL", "bridge")]
    assert host.calls[-1][2]["prevResult"]["from"] == "bridge"


async def test_failed_add_raises_its_error_even_if_del_fails(host, attach):
    host.answers["ADD", "bridge"] = failed("no more addresses")
    host.answers["DEL", "portmap"] = failed("DEL broke")
    with pytest.raises(ToolError, match="no more addresses"):
        await attach()
    assert host.order[-1] == ("DEL", "bridge")


async def test_failed_del_calls_every_plugin(network, host, pod, netns):
    host.answers["DEL", "bandwidth"] = failed("first")
    host.answers["DEL", "bridge"] = failed("last")
    with pytest.raises(ToolError, match="first"):
        await network.detach("5b", netns, pod, b"")
    assert len(host.calls) == 3


async def test_add_that_hangs_names_the_plugin_and_is_undone(host, attach):
    host.answers["ADD", "portmap"] = DeadlineExceeded("portmap did not finish within 89 s")
    with pytest.raises(DeadlineExceeded, match="CNI plugin portmap ADD: portmap did not finish within 89 s"):
        await attach()
    assert host.order[2:] == [("DEL", "bandwidth"), ("DEL", "portmap"), ("DEL", "bridge")]
    assert all(85 < timeout <= 90 for timeout in host.timeouts[:2]), "the chain has one deadline"


@pytest.mark.parametrize(("plugins", "seconds"), [(1, 30), (3, 30), (5, 18)])
async def test_del_that_hangs_ends_before_the_kubelet_gives_up(
    network, host, conf_dir, pod, netns, plugins, seconds
):
    chain = {"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}] * plugins}
    (conf_dir / "10-pods.conflist").write_text(json.dumps(chain))
    host.answers["DEL", "bridge"] = DeadlineExceeded("bridge did not finish")
    with pytest.raises(DeadlineExceeded, match="CNI plugin bridge DEL: bridge did not finish"):
        await network.detach("5b", netns, pod, b"")
    assert host.timeouts == [seconds] * plugins


async def test_error_without_stdout_contains_stderr(host, attach):
    host.answers["ADD", "bridge"] = Completed(2, b"", b"panic: oh\n\tno\n" + b"x" * 5000)
    with pytest.raises(ToolError, match="panic: oh no") as caught:
        await attach()
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    "stdout",
    [b"", b"[]", b"{}", b'{"ips": [{"address": "nonsense"}]}', b'{"ips": 5}', b'{"ips":[{"interface":7}]}'],
)
async def test_add_with_an_invalid_result_is_undone(host, stdout, attach):
    host.answers["ADD", "bandwidth"] = Completed(0, stdout, b"")
    with pytest.raises(ToolError, match="result"):
        await attach()
    assert host.order[-1] == ("DEL", "bridge")


CNI0, ETH0, NET1 = {"name": "cni0"}, {"name": "eth0", "sandbox": "/ns"}, {"name": "net1", "sandbox": "/ns"}


def result_of(interfaces, *ips):
    """Return a result. Its addresses are pairs of an interface's index, or None, and an address."""
    entries = [{"address": address} | ({} if at is None else {"interface": at}) for at, address in ips]
    listed = {} if interfaces is None else {"interfaces": interfaces}
    return Completed(0, json.dumps({"cniVersion": "1.0.0", "ips": entries} | listed).encode(), b"")


@pytest.mark.parametrize(
    ("result", "ips"),
    [
        (
            result_of([CNI0, ETH0, NET1], (0, "10.9.0.1/24"), (1, "10.9.0.2/24"), (2, "10.8.0.2/24")),
            ("10.9.0.2",),
        ),
        (result_of([{"name": "eth0"}], (0, "10.9.0.2/24")), ("10.9.0.2",)),
        (result_of([ETH0], (0, "10.9.0.2/24"), (None, "10.9.0.3/24")), ("10.9.0.2", "10.9.0.3")),
        (result_of(None, (None, "10.9.0.2/24")), ("10.9.0.2",)),
        (result_of([], (None, "fd00::2/64")), ("fd00::2",)),
        (
            result_of([ETH0], (0, "fd00::2/64"), (0, "10.9.0.2/24"), (0, "fd00::3/64"), (0, "10.9.0.3/24")),
            ("10.9.0.2", "fd00::2", "fd00::3", "10.9.0.3"),
        ),
        (result_of([{"name": "veth7"}], (0, "10.9.0.2/24")), ("10.9.0.2",)),
    ],
    ids=["names", "no-sandbox", "some-without", "absent", "empty", "ipv6-first", "another-name"],
)
async def test_ips_are_those_that_other_runtimes_read(host, result, ips, attach):
    host.answers["ADD", "bandwidth"] = result
    assert (await attach()).ips == ips


@pytest.mark.parametrize("index", [-1, 1, 1 << 70, True, "0", 0.0])
async def test_ip_of_an_unknown_interface_undoes_the_add(host, index, attach):
    host.answers["ADD", "bandwidth"] = result_of([ETH0], (index, "10.9.0.2/24"))
    with pytest.raises(ToolError) as caught:
        await attach()
    assert f"address 10.9.0.2/24 is on interface {str(index)[:20]}, but the result has 1 of them" in str(
        caught.value
    )
    assert host.order[3:] == [("DEL", "bandwidth"), ("DEL", "portmap"), ("DEL", "bridge")]


async def test_ready_follows_changes_of_the_directories(network, conf_dir, plugin_dir):
    assert await network.ready() == (True, "")
    (plugin_dir / "portmap").unlink()
    ready, reason = await network.ready()
    assert not ready
    assert reason == f"CNI plugin portmap is not in {plugin_dir}"
    (conf_dir / "10-pods.conflist").unlink()
    assert await network.ready() == (
        False,
        f"the pod network is not configured: no CNI configuration in {conf_dir}",
    )
    (conf_dir / "10-pods.conflist").write_text(
        json.dumps({"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]})
    )
    assert await network.ready() == (True, "")


async def test_missing_configuration_is_unavailable_except_for_del(network, host, conf_dir, pod, netns):
    (conf_dir / "10-pods.conflist").unlink()
    with pytest.raises(Unavailable, match="not configured"):
        await network.configuration()
    await network.detach("5b", netns, pod, b"")
    assert host.calls == []


async def test_del_after_an_unfinished_add_has_its_configuration(network, host, conf_dir, pod, netns):
    given = await network.configuration()
    (conf_dir / "10-pods.conflist").unlink()
    await network.detach("5b", netns, pod, given)
    assert host.order == [("DEL", "bandwidth"), ("DEL", "portmap"), ("DEL", "bridge")]
    assert not any("prevResult" in config for _, _, config, _ in host.calls)
