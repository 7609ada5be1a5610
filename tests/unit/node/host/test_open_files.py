"""The limit on open files of the daemon and of the programs that it starts."""

from __future__ import annotations

import subprocess
import sys

from noderuntime.agent.units import render

_PROGRAM = """
import asyncio, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 900))
from noderuntime.node.host import open_files
from noderuntime.node.host.linux import LinuxHost

async def main():
    open_files.raise_limit()
    print(*resource.getrlimit(resource.RLIMIT_NOFILE))
    script = "read go; ulimit -Sn; ulimit -Hn"
    program = await LinuxHost().converse(["sh", "-c", script], stdin=True, terminal=False)
    await program.write(b"go\\n")
    while data := (await program.read())[1]:
        print(data.decode(), end="")
    await program.close()

asyncio.run(main())
"""


def test_daemon_has_its_hard_limit_and_programs_the_soft_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.split() == ["900", "900", "300", "900"]


def test_unit_has_the_limits_that_containers_get() -> None:
    unit = render(revision="r")["noderuntime.service"]
    assert "LimitNOFILE=1024:524288\n" in unit
