"""Checks of the CNI configuration and of the plugins that it names."""

from __future__ import annotations

from collections.abc import Iterator

from noderuntime.config import NetworkConfig
from noderuntime.core.errors import InvalidArgument, NotFound
from noderuntime.doctor.finding import Finding, fail, ok
from noderuntime.node.host.base import Host
from noderuntime.node.network import conflist
from noderuntime.node.network.plugin import PluginRunner


def network(config: NetworkConfig, host: Host) -> Iterator[Finding]:
    """Check that the configuration can be read and that each plugin is installed."""
    try:
        found = conflist.load(config.conf_dir)
    except InvalidArgument as error:
        yield fail(
            "CNI configuration",
            str(error),
            f"install the cluster's network add-on, which writes it into {config.conf_dir}",
        )
        return
    kinds = [plugin["type"] for plugin in found.plugins]
    yield ok("CNI configuration", f"network {found.name}: {', '.join(kinds)}")
    runner = PluginRunner(host, config.plugin_dirs)
    for kind in kinds:
        try:
            yield ok(f"CNI plugin {kind}", str(runner.find(kind)))
        except NotFound as error:
            yield fail(
                f"CNI plugin {kind}",
                str(error),
                "install it there, or add its directory to network.plugin_dirs",
            )
