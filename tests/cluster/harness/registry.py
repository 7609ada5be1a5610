"""The local registry: Debian's docker-registry on the cluster's bridge, plain HTTP.

Its storage is shared by all clusters and outlives them, so an image is pushed once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness import processes
from harness.network import Network
from harness.paths import CACHE, tool
from harness.run import run, wait_for

STORAGE = CACHE / "registry"


@dataclass(frozen=True)
class Registry:
    """The registry process whose state is in a directory."""

    directory: Path
    network: Network

    @property
    def address(self) -> str:
        """The host and port for image references."""
        return f"{self.network.host_ip}:5000"

    def up(self) -> None:
        """Start the registry and wait until it answers."""
        config = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(STORAGE)}, "delete": {"enabled": True}},
            "http": {"addr": self.address},
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "registry.yml"
        file.write_text(json.dumps(config))
        processes.start(self.directory, "registry", [tool("docker-registry"), "serve", str(file)])
        wait_for("registry", lambda: bool(run("curl", "-sf", f"http://{self.address}/v2/")), timeout=20)

    def down(self) -> None:
        """Stop the registry."""
        processes.stop(self.directory, "registry")

    def is_running(self) -> bool:
        """Return whether the registry is running."""
        return processes.is_running(self.directory, "registry")
