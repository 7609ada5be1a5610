"""A client of systemd that runs ``systemctl``.

The agent's pod reaches systemd only over the system bus: on systemd's private socket, systemctl cannot
identify a peer outside its PID namespace, and refuses the connection.
"""

from __future__ import annotations

from noderuntime.core.errors import ToolError
from noderuntime.node.host.base import Host

_DEFAULT_TIMEOUT = 30.0


class Systemd:
    """The systemctl verbs that agent and switch need. Each raises ToolError with systemctl's message."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def reload(self) -> None:
        """Reload the unit files (daemon-reload)."""
        await self._call("daemon-reload", timeout=90)

    async def start(self, unit: str, *, timeout: float = 120) -> None:
        """Start a unit and wait until it is active. Does nothing if it is active."""
        await self._call("start", unit, timeout=timeout)

    async def restart(self, unit: str, *, timeout: float = 120) -> None:
        """Restart a unit and wait until it is active."""
        await self._call("reset-failed", unit, check=False)
        await self._call("restart", unit, timeout=timeout)

    async def stop(self, unit: str, *, timeout: float = 120) -> None:
        """Stop a unit. A unit that is not loaded is ignored."""
        await self._call("stop", unit, timeout=timeout, check=await self._is_loaded(unit))

    async def kill(self, unit: str) -> None:
        """Kill a service's main process at once and keep it stopped. A unit that is not loaded is ignored."""
        await self._call("kill", "--kill-who=main", "--signal=KILL", unit, check=False)
        await self.stop(unit)

    async def enable(self, *units: str) -> None:
        """Enable units, so that they start at boot."""
        await self._call("enable", *units)

    async def disable(self, *units: str) -> None:
        """Disable units. Unknown units are ignored."""
        await self._call("disable", *units, check=False)

    async def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit. Those of an unknown unit have systemd's defaults."""
        output = await self._call("show", f"--property={','.join(properties)}", unit)
        found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        return {name: found.get(name, "") for name in properties}

    async def main_pid(self, unit: str) -> int:
        """Return the PID of a service's main process, or 0 if it is not running."""
        return int((await self.show(unit, "MainPID"))["MainPID"] or 0)

    async def _is_loaded(self, unit: str) -> bool:
        return (await self.show(unit, "LoadState"))["LoadState"] == "loaded"

    async def _call(self, *arguments: str, timeout: float = _DEFAULT_TIMEOUT, check: bool = True) -> str:
        argv = ["systemctl", "--no-ask-password", "--no-pager", *arguments]
        done = await self._host.run(argv, timeout=timeout)
        if check and done.returncode != 0:
            message = " ".join(done.stderr.decode(errors="replace").split())
            raise ToolError("systemctl", " ".join(arguments[:2]), done.returncode, message[:300])
        return done.stdout.decode(errors="replace")
