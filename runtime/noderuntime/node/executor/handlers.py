"""The executors of the configured handlers, by the name that pods select as ``runtime_handler``."""

from __future__ import annotations

from noderuntime.config import Config, RunscConfig
from noderuntime.node.executor.base import Executor
from noderuntime.node.executor.gvisor import GvisorExecutor
from noderuntime.node.executor.oci import OciExecutor
from noderuntime.node.executor.runc import RuncExecutor
from noderuntime.node.host.base import Host


def executors(config: Config, host: Host, *, systemd_cgroup: bool) -> dict[str, Executor]:
    """Return an executor for each configured handler, by its name."""
    run_dir = config.server.run_dir
    made: dict[str, Executor] = {}
    for name, handler in config.handlers.items():
        if handler.type == "gvisor":
            made[name] = GvisorExecutor(
                name,
                host,
                handler.path,
                run_dir,
                config.tools.busybox,
                systemd_cgroup=systemd_cgroup,
                chosen=_flags(handler.runsc),
            )
        else:
            kind = RuncExecutor if handler.type == "runc" else OciExecutor
            made[name] = kind(name, host, handler.path, run_dir, systemd_cgroup=systemd_cgroup)
    return made


def _flags(runsc: RunscConfig) -> tuple[str, ...]:
    """Return runsc's flags for a node's choices; none for the defaults of runsc."""
    return (
        f"--platform={runsc.platform}",
        *([f"--host-uds={runsc.host_uds}"] if runsc.host_uds != "none" else []),
        *(["--directfs=false"] if not runsc.directfs else []),
        *(["--net-raw"] if runsc.net_raw else []),
        *(["--enable-core-tags"] if runsc.core_tags else []),
    )
