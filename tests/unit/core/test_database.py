import errno
import os

import pytest

from noderuntime.core.database import Database
from noderuntime.core.errors import HostError

STEPS = ("CREATE TABLE things (name TEXT PRIMARY KEY) STRICT;",)
PUT = "INSERT INTO things VALUES (?)"


async def test_write_executes_all_statements_or_none(tmp_path):
    database = Database(tmp_path / "things.db", "list of things", STEPS, lambda _: None)
    await database.write((PUT, ["a"]), (PUT, ["b"]))
    with pytest.raises(HostError, match="writing the list of things: UNIQUE constraint"):
        await database.write((PUT, ["c"]), (PUT, ["a"]))
    await database.write()
    await database.close()
    seen = []
    database = Database(
        tmp_path / "things.db",
        "list of things",
        STEPS,
        lambda c: seen.extend(c.execute("SELECT * FROM things")),
    )
    assert seen == [("a",), ("b",)]
    await database.close()


async def test_databases_in_one_directory_have_separate_locks(tmp_path):
    one = Database(tmp_path / "one.db", "first", STEPS, lambda _: None)
    other = Database(tmp_path / "other.db", "second", STEPS, lambda _: None)
    await one.close()
    await other.close()


async def test_sync_flushes_the_wal(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    database = Database(tmp_path / "things.db", "list of things", STEPS, lambda _: None)
    await database.write((PUT, ["a"]))
    await database.sync()
    assert flushed == [str(tmp_path / "things.db-wal")]
    await database.close()


async def test_sync_raises_when_the_disk_fails(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    database = Database(tmp_path / "things.db", "list of things", STEPS, lambda _: None)
    await database.write((PUT, ["a"]))
    with pytest.raises(HostError, match="flush the list of things: Input/output error"):
        await database.sync()
    await database.close()
