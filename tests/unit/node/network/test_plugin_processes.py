"""Plugins that are real programs, and outlive the daemon that called them."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.process import identify
from noderuntime.node.network.cni import CniNetwork

PLUGIN = """\
#!/bin/sh
# ADD takes an address, hangs, and takes another one; GC hangs and gives all back.
cd "$(dirname "$0")"
case $CNI_COMMAND in
ADD) touch lease; echo $$ > fifo; sleep 60; touch lease ;;
DEL) rm -f lease ;;
GC) echo $$ > fifo; sleep 60; rm -f lease ;;
esac
"""
DAEMON = """
    import asyncio, sys
    from pathlib import Path
    from noderuntime.core.paths import Paths
    from noderuntime.cri.v1 import api_pb2
    from noderuntime.node.host.linux import LinuxHost
    from noderuntime.node.network.cni import CniNetwork

    conf_dir, plugin_dir, run_dir, netns = map(Path, sys.argv[1:])
    network = CniNetwork(LinuxHost(), conf_dir, [plugin_dir], Paths(run_dir))

    async def add():
        await network.attach("5b", str(netns), api_pb2.PodSandboxConfig(), await network.configuration())

    asyncio.run({work})
"""
ADD, GC = "add()", "network.collect_garbage(dict)"


@pytest.fixture
def slow_plugin(conf_dir, plugin_dir):
    chain = {"name": "pods", "cniVersion": "1.1.0", "plugins": [{"type": "slow"}]}
    (conf_dir / "10-pods.conflist").write_text(json.dumps(chain))
    (plugin_dir / "slow").write_text(PLUGIN)
    (plugin_dir / "slow").chmod(0o755)
    os.mkfifo(plugin_dir / "fifo")
    return plugin_dir


@pytest.fixture
def network(conf_dir, slow_plugin, paths):
    return CniNetwork(LinuxHost(), conf_dir, [slow_plugin], paths)


@pytest.fixture
def leave_running(slow_plugin, conf_dir, paths, tmp_path):
    """Return a function that kills a daemon at work, and returns the plugin that outlives it."""

    def leave(work):
        places = map(str, (conf_dir, slow_plugin, paths.run_dir, tmp_path / "netns"))
        script = textwrap.dedent(DAEMON).format(work=work)
        daemon = subprocess.Popen([sys.executable, "-c", script, *places])
        plugin = identify(int((slow_plugin / "fifo").read_text(encoding="ascii")))
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        assert plugin == identify(plugin.pid), "the plugin outlives the daemon"
        return plugin

    return leave


async def test_del_ends_the_add_of_a_killed_daemon_first(leave_running, network, slow_plugin, pod, tmp_path):
    plugin = leave_running(ADD)
    await network.detach("5b", str(tmp_path / "netns"), pod, b"")
    assert await LinuxHost().wait(plugin, timeout=5)
    assert not (slow_plugin / "lease").exists()


async def test_del_ends_the_gc_of_a_killed_daemon_first(leave_running, network, pod, tmp_path):
    """Its list of valid attachments lacks the pods of later."""
    plugin = leave_running(GC)
    await network.detach("5b", str(tmp_path / "netns"), pod, b"")
    assert await LinuxHost().wait(plugin, timeout=5)
