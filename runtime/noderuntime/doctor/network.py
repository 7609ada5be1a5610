"""Checks of the CNI configuration and of the plugins that it names."""

from __future__ import annotations

from noderuntime.config import NetworkConfig
from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument, NoderuntimeError, NotFound
from noderuntime.doctor.finding import Finding, State, fail, ok
from noderuntime.node.host.base import Host
from noderuntime.node.network import conflist
from noderuntime.node.network.chain import Chain
from noderuntime.node.network.plugin import PluginRunner


async def network(config: NetworkConfig, host: Host) -> list[Finding]:
    """Check that the configuration can be read, that each plugin is installed, and that it is ready."""
    try:
        found = await FILES.run(conflist.load, config.conf_dir)
    except InvalidArgument as error:
        advice = f"install the cluster's network add-on, which writes it into {config.conf_dir}"
        return [fail("CNI configuration", str(error), advice)]
    kinds = [plugin["type"] for plugin in found.plugins]
    runner = PluginRunner(host, config.plugin_dirs)
    plugins = await FILES.run(lambda: [_plugin(runner, kind) for kind in kinds])
    findings = [ok("CNI configuration", f"network {found.name}: {', '.join(kinds)}"), *plugins]
    if found.at_least("1.1.0") and all(one.state is State.OK for one in plugins):
        findings.append(await _status(Chain(runner, found)))
    return findings


def _plugin(runner: PluginRunner, kind: str) -> Finding:
    try:
        return ok(f"CNI plugin {kind}", str(runner.find(kind)))
    except NotFound as error:
        advice = "install it there, or add its directory to network.plugin_dirs"
        return fail(f"CNI plugin {kind}", str(error), advice)


async def _status(chain: Chain) -> Finding:
    try:
        await chain.status()
    except NoderuntimeError as error:
        return fail("CNI STATUS", str(error), "see the logs of the network add-on on this node")
    return ok("CNI STATUS", "the plugins can attach pods")
