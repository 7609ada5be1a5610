"""Paths and unit names on the node. The agent's pod sees the node's filesystem at ``/host``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SERVICE = "noderuntime.service"
SWITCH = "noderuntime-switch.service"
REVERT = "noderuntime-switch-revert.service"
RESUME = "noderuntime-switch-resume.service"
REVERT_TIMER = "noderuntime-switch-revert.timer"
FALLBACK = "noderuntime-fallback.service"
FALLBACK_DROP_IN = f"{SERVICE}.d/10-fallback.conf"
SLICE = "noderuntime.slice"
"""The slice of canaries, when systemd manages cgroups."""
DAEMON_UNITS = (SERVICE, FALLBACK_DROP_IN)
"""What systemd must know before it starts a release's daemon."""
SWITCH_UNITS = (SWITCH, RESUME, REVERT, FALLBACK)
UNITS = (*DAEMON_UNITS, *SWITCH_UNITS, REVERT_TIMER)
"""Files below ``/etc/systemd/system``."""

ENDPOINT = "unix:///run/noderuntime/noderuntime.sock"
"""The kubelet's endpoint. Always a path on the node, also within the agent's pod."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The node's paths. ``root`` is ``/`` on the node and ``/host`` in the agent's pod."""

    root: Path = Path("/")

    def at(self, path: str | Path) -> Path:
        """Return the path below ``root`` of an absolute path on the node."""
        return self.root / str(path).lstrip("/")

    @property
    def opt(self) -> Path:
        """The directory of the versions and of the symlink ``current``."""
        return self.at("/opt/noderuntime")

    @property
    def versions(self) -> Path:
        """The directory with a subdirectory for each version of the bundle."""
        return self.opt / "versions"

    @property
    def current(self) -> Path:
        """The symlink to the version that the daemon's unit runs."""
        return self.opt / "current"

    @property
    def proven(self) -> Path:
        """The symlink to the version that served last. The switch runs from it."""
        return self.opt / "proven"

    @property
    def previous(self) -> Path:
        """The symlink to the version that served before. The fallback runs from it."""
        return self.opt / "previous"

    @property
    def etc(self) -> Path:
        """The directory of the daemon's and the switch's configuration."""
        return self.at("/etc/noderuntime")

    @property
    def config(self) -> Path:
        """The daemon's configuration, written by the agent."""
        return self.etc / "config.toml"

    @property
    def upstream_config(self) -> Path:
        """The daemon's upstream, written by the switch, which finds it on the node."""
        return self.etc / "conf.d" / "10-upstream.toml"

    @property
    def switch_config(self) -> Path:
        """The switch's configuration, written by the agent."""
        return self.etc / "switch.toml"

    @property
    def staged(self) -> Path:
        """The release that the agent wants to serve; the switch installs it."""
        return self.etc / "staged.json"

    @property
    def claim(self) -> Path:
        """The file that the agent which may change this node has locked."""
        return self.etc / "agent.lock"

    @property
    def units(self) -> Path:
        """The directory of an administrator's systemd units."""
        return self.at("/etc/systemd/system")

    @property
    def run(self) -> Path:
        """The daemon's run directory."""
        return self.at("/run/noderuntime")

    @property
    def socket(self) -> Path:
        """The daemon's CRI socket."""
        return self.run / "noderuntime.sock"

    @property
    def state(self) -> Path:
        """The daemon's and the switch's state."""
        return self.at("/var/lib/noderuntime")

    @property
    def journal(self) -> Path:
        """The journal with the kubelet's previous settings, during and after a switch."""
        return self.state / "switch" / "journal.json"

    @property
    def releases(self) -> Path:
        """The releases that served, and the one that failed."""
        return self.state / "switch" / "releases.json"

    @property
    def upgrade(self) -> Path:
        """The journal of an upgrade; the databases' copies are beside it."""
        return self.state / "switch" / "upgrade" / "journal.json"

    @property
    def result(self) -> Path:
        """The result of the switch's last run."""
        return self.state / "switch" / "result.json"

    @property
    def lock(self) -> Path:
        """The lock file of the switch. Held while the kubelet's settings are changed."""
        return self.state / "switch" / "lock"

    @property
    def proc(self) -> Path:
        """The node's processes. Read by the switch only, which runs on the host."""
        return self.at("/proc")

    def is_empty(self) -> bool:
        """Return whether noderuntime is not installed on the node."""
        links = (self.current, self.proven, self.previous)
        leftovers = (*links, self.config, self.switch_config, self.units / SERVICE, self.units / SWITCH)
        return not any(path.is_symlink() or path.exists() for path in leftovers)
