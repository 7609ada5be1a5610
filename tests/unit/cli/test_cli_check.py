"""``noderuntime check``: what a version refuses before it replaces the one that serves."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from noderuntime.cli import run
from noderuntime.images.store.catalog import Catalog
from noderuntime.lifecycle.ledger.ledger import Ledger


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose programs run, with its drop-ins in another directory."""
    pause = tmp_path / "pause"
    pause.mkdir()
    for program in (tmp_path / "tool", pause / "pause", pause / "busybox"):
        program.write_text('#!/bin/sh\necho \'{"ociVersionMax": "1.2.0"}\'\n')
        program.chmod(0o755)
    for directory in ("drop-ins", "state"):
        (tmp_path / directory).mkdir()
    path = tmp_path / "config.toml"
    path.write_text(
        f"[server]\nstate_dir = '{tmp_path}/state'\nrun_dir = '{tmp_path}/run'\n"
        f"[tools]\nconmon = '{tmp_path}/tool'\nbusybox = '{tmp_path}/tool'\npause_rootfs = '{pause}'\n"
        f"[handlers.runc]\ntype = 'runc'\npath = '{tmp_path}/tool'\n"
    )
    return path


def check(config: Path, *arguments: str) -> int:
    return run(["check", "--config", str(config), "--drop-ins", str(config.parent / "drop-ins"), *arguments])


async def _databases(state: Path) -> None:
    await Ledger(state).close()
    await Catalog(state / "images/images.db", set, "boot", lambda _: None).close()


def test_check_of_a_usable_node_succeeds_and_leaves_nothing(config: Path) -> None:
    assert check(config) == 0
    asyncio.run(_databases(config.parent / "state"))
    before = sorted(config.parent.rglob("*"))
    assert check(config) == 0
    assert sorted(config.parent.rglob("*")) == before


def test_check_refuses_a_drop_in_by_its_name(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "drop-ins/50-old.toml").write_text("[server]\nold_key = 1\n")
    assert check(config) == 2
    assert "server.old_key" in capsys.readouterr().err


def test_check_refuses_a_program_that_does_not_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "drop-ins/gvisor.toml").write_text(
        "[handlers.gvisor]\ntype = 'gvisor'\npath = '/nowhere/runsc'\n"
    )
    assert check(config) == 1
    assert "handler gvisor: " in capsys.readouterr().err
    assert check(config, "--handlers", "runc,gvisor") == 1
    assert check(config, "--handlers", "runc") == 0
    assert check(config, "--handlers", "") == 0


@pytest.mark.parametrize("name", ["ledger.db", "images/images.db"])
def test_check_refuses_a_database_that_needs_a_newer_version(
    config: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = config.parent / "state" / name
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA user_version = 99; PRAGMA application_id = 99;")
    assert check(config) == 1
    assert "has schema 99" in capsys.readouterr().err


def test_check_refuses_a_damaged_ledger(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "state/ledger.db").write_bytes(b"no database" * 1000)
    assert check(config) == 1
    assert "file is not a database" in capsys.readouterr().err
