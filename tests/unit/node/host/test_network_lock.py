"""Removal of CRIU's network lock with the programs of iptables."""

import shutil
from pathlib import Path

import pytest

from noderuntime.core.errors import ToolError
from noderuntime.node.host.base import Completed
from noderuntime.node.host.network_lock import remove_network_lock

PIN = Path("/run/netns")
OPEN = b"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 10.0.0.1/32 -j DROP\nCOMMIT\n"
LOCKED = (
    b"*filter\n:INPUT ACCEPT [0:0]\n:CRIU - [0:0]\n-A INPUT -j CRIU\n-A OUTPUT -j CRIU\n"
    b"-A CRIU -j DROP\nCOMMIT\n"
)


class Programs:
    """iptables-save returns these rules; a program in ``fail`` exits with status 4."""

    def __init__(self, rules: bytes, fail: str = "") -> None:
        self.rules = rules
        self.fail = fail
        self.ran: list[str] = []
        self.given: list[bytes] = []

    async def __call__(self, argv, *, timeout, stdin=b""):
        assert argv[:3] == ["nsenter", f"--net={PIN}", "--"]
        self.ran.append(argv[3])
        if stdin:
            self.given.append(stdin)
        if argv[3] == self.fail:
            return Completed(4, b"", b"Another app holds the lock.\n")
        return Completed(0, self.rules if argv[3].endswith("-save") else b"", b"")


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/sbin/{program}")


async def test_lock_is_removed_with_its_jumps():
    programs = Programs(LOCKED)
    await remove_network_lock(programs, PIN)
    assert programs.ran[:2] == ["iptables-save", "iptables-restore"]
    assert programs.given[0].splitlines() == [
        b"*filter", b"-D INPUT -j CRIU", b"-D OUTPUT -j CRIU", b"-F CRIU", b"-X CRIU", b"COMMIT",
    ]  # fmt: skip


async def test_rules_without_a_lock_stay():
    programs = Programs(OPEN)
    await remove_network_lock(programs, PIN)
    assert programs.given == []


@pytest.mark.parametrize("program", ["iptables-save", "iptables-restore"])
async def test_failed_program_is_an_error(program):
    with pytest.raises(ToolError, match=f"{program}.*4.*Another app holds the lock"):
        await remove_network_lock(Programs(LOCKED, program), PIN)
