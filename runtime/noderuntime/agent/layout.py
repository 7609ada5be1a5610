"""Where things lie on the node; the agent's pod sees the node below ``/host``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SERVICE = "noderuntime.service"
SWITCH = "noderuntime-switch.service"
REVERT = "noderuntime-switch-revert.service"
REVERT_TIMER = "noderuntime-switch-revert.timer"
SLICE = "noderuntime.slice"
"""Holds canaries where systemd manages cgroups."""
UNITS = (SERVICE, SWITCH, REVERT, REVERT_TIMER)

ENDPOINT = "unix:///run/noderuntime/noderuntime.sock"
"""What the kubelet is told; a path of the node, whoever looks at it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The node's paths below ``root``: ``/`` on the node, ``/host`` in the agent's pod."""

    root: Path = Path("/")

    def at(self, path: str | Path) -> Path:
        """Return where an absolute path of the node is found from here."""
        return self.root / str(path).lstrip("/")

    @property
    def opt(self) -> Path:
        """Holds the versions and the link ``current``."""
        return self.at("/opt/noderuntime")

    @property
    def versions(self) -> Path:
        """Holds a directory for each version of the bundle."""
        return self.opt / "versions"

    @property
    def current(self) -> Path:
        """Link to the version that the units run."""
        return self.opt / "current"

    @property
    def etc(self) -> Path:
        """Holds the daemon's and the switch's configuration."""
        return self.at("/etc/noderuntime")

    @property
    def config(self) -> Path:
        """The daemon's configuration, written by the agent."""
        return self.etc / "config.toml"

    @property
    def upstream_config(self) -> Path:
        """The daemon's upstream, written by the switch: only the node knows it."""
        return self.etc / "conf.d" / "10-upstream.toml"

    @property
    def order(self) -> Path:
        """What is wanted of the node, written by the agent for the switch."""
        return self.etc / "switch.toml"

    @property
    def units(self) -> Path:
        """Where systemd reads an administrator's units."""
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
        """The old settings of the kubelet, while it is or becomes ours."""
        return self.state / "switch" / "journal.json"

    @property
    def result(self) -> Path:
        """How the last run of the switch ended."""
        return self.state / "switch" / "result.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes the kubelet."""
        return self.state / "switch" / "lock"

    @property
    def proc(self) -> Path:
        """The node's processes; only host units look at them."""
        return self.at("/proc")

    def is_empty(self) -> bool:
        """Tell whether nothing of ours is installed on the node."""
        leftovers = (self.current, self.config, self.order, self.units / SERVICE, self.units / SWITCH)
        return not any(path.is_symlink() or path.exists() for path in leftovers)
