"""systemd, asked through ``systemctl``.

The agent's pod reaches it by the system bus alone: over systemd's private socket systemctl
cannot see who is at the other end when that is outside of its PID namespace, and gives up.
"""

from __future__ import annotations

from noderuntime.core.errors import ToolError
from noderuntime.node.host.base import Host

_QUICK = 30.0


class Systemd:
    """A few verbs of systemctl; each raises ToolError with its words."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def reload(self) -> None:
        """Read the unit files again."""
        await self._call("daemon-reload", timeout=90)

    async def start(self, unit: str, *, timeout: float = 120) -> None:
        """Start a unit and wait until it is up; nothing if it is."""
        await self._call("start", unit, timeout=timeout)

    async def restart(self, unit: str, *, timeout: float = 120) -> None:
        """Restart a unit and wait until it is up."""
        await self._call("reset-failed", unit, check=False)
        await self._call("restart", unit, timeout=timeout)

    async def stop(self, unit: str, *, timeout: float = 120) -> None:
        """Stop a unit; one that is not loaded is no error."""
        await self._call("stop", unit, timeout=timeout, check=await self._is_loaded(unit))

    async def enable(self, *units: str) -> None:
        """Have units started at boot."""
        await self._call("enable", *units)

    async def disable(self, *units: str) -> None:
        """Have units no longer started at boot; unknown ones are no error."""
        await self._call("disable", *units, check=False)

    async def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit; those of an unknown one have their defaults."""
        output = await self._call("show", f"--property={','.join(properties)}", unit)
        found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        return {name: found.get(name, "") for name in properties}

    async def main_pid(self, unit: str) -> int:
        """Return the PID of a service's main process; 0 if it has none."""
        return int((await self.show(unit, "MainPID"))["MainPID"] or 0)

    async def _is_loaded(self, unit: str) -> bool:
        return (await self.show(unit, "LoadState"))["LoadState"] == "loaded"

    async def _call(self, *arguments: str, timeout: float = _QUICK, check: bool = True) -> str:
        argv = ["systemctl", "--no-ask-password", "--no-pager", *arguments]
        done = await self._host.run(argv, timeout=timeout)
        if check and done.returncode != 0:
            words = " ".join(done.stderr.decode(errors="replace").split())
            raise ToolError("systemctl", " ".join(arguments[:2]), done.returncode, words[:300])
        return done.stdout.decode(errors="replace")
