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
# ADD takes an address and hangs before it takes another one.
cd "$(dirname "$0")"
case $CNI_COMMAND in
ADD) touch lease; echo $$ > fifo; sleep 60; touch lease ;;
DEL) rm -f lease ;;
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
    asyncio.run(network.attach("5b", str(netns), api_pb2.PodSandboxConfig()))
"""


@pytest.fixture
def slow_plugin(conf_dir, plugin_dir):
    chain = {"name": "pods", "cniVersion": "1.0.0", "plugins": [{"type": "slow"}]}
    (conf_dir / "10-pods.conflist").write_text(json.dumps(chain))
    (plugin_dir / "slow").write_text(PLUGIN)
    (plugin_dir / "slow").chmod(0o755)
    os.mkfifo(plugin_dir / "fifo")
    return plugin_dir


async def test_del_waits_for_the_add_of_a_killed_daemon(slow_plugin, conf_dir, paths, pod, tmp_path):
    places = map(str, (conf_dir, slow_plugin, paths.run_dir, tmp_path / "netns"))
    daemon = subprocess.Popen([sys.executable, "-c", textwrap.dedent(DAEMON), *places])
    plugin = identify(int((slow_plugin / "fifo").read_text(encoding="ascii")))
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    assert plugin == identify(plugin.pid), "the plugin outlives the daemon"

    network = CniNetwork(LinuxHost(), conf_dir, [slow_plugin], paths)
    await network.detach("5b", str(tmp_path / "netns"), pod, b"")
    assert await LinuxHost().wait(plugin, timeout=5)
    assert not (slow_plugin / "lease").exists()
