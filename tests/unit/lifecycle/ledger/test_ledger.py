import asyncio
import sqlite3
from contextlib import closing

import pytest
from fakes import container_config, pod_config

from noderuntime.core.errors import AlreadyExists, FailedPrecondition, HostError, InvalidArgument, NotFound
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.node.host.base import ProcessRef

A, B, C = ("a1" + "0" * 62, "a2" + "0" * 62, "b" * 64)


def full_sandbox(identifier=A, name="web"):
    return Sandbox(
        id=identifier,
        handler="runc",
        config=pod_config(name, labels={"k": "ü"}),
        created_at=1,
        ready_at=2,
        stopped_at=3,
        netns="/run/netns/x",
        ips=("10.0.0.1", "fd00::1"),
        cni_result=b"\x00{}",
        root=ProcessRef(1, 2),
        monitor=ProcessRef(3, 4),
        released_at=5,
    )


def full_container(identifier=C, sandbox_id=A):
    return Container(
        id=identifier,
        sandbox_id=sandbox_id,
        config=container_config(),
        created_at=1,
        image_id="sha256:1",
        image_ref="app@sha256:2",
        image_name="app:1",
        volume_images=("sha256:3",),
        log_path="/l",
        process=ProcessRef(1, 2),
        prepared_at=2,
        starting=True,
        started_at=3,
        stopping_at=4,
        finished_at=5,
        released_at=6,
        exit_code=-1,
        oom_killed=True,
        start_error="no",
        lost=True,
        stop_signal=9,
        user=api_pb2.LinuxContainerUser(uid=7),
        resources=api_pb2.LinuxContainerResources(cpu_shares=2),
    )


_ADDED = (
    ["volume_images"],
    ["pod_oom_kills"],
    ["image_ref"],
    ["killed_at"],
    ["updating"],
    ["checkpointing_at"],
)
"""Columns of containers that each migration after the first added."""


@pytest.mark.parametrize("version", range(1, len(_ADDED) + 1))
async def test_ledger_of_an_older_daemon_is_migrated(tmp_path, version):
    without = [column for columns in _ADDED[version - 1 :] for column in columns]
    expected = full_container()
    if "image_ref" in without:
        expected.image_ref = expected.image_id
        expected.volume_images = () if "volume_images" in without else ("sha256:3",)
    ledger = Ledger(tmp_path)
    await ledger.sandboxes.add(full_sandbox())
    await ledger.containers.add(full_container())
    await ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as older:
        for column in without:
            older.execute(f"ALTER TABLE containers DROP COLUMN {column}")
        older.execute(f"PRAGMA user_version = {version}")
    older.close()
    ledger = Ledger(tmp_path)
    assert ledger.containers.get(C) == expected
    await ledger.close()


async def test_reopened_ledger_has_all_records(tmp_path):
    ledger = Ledger(tmp_path)
    await ledger.sandboxes.add(full_sandbox())
    await ledger.containers.add(full_container())
    await ledger.set_meta("boot_id", "x")
    await ledger.close()
    ledger = Ledger(tmp_path)
    assert list(ledger.sandboxes) == [full_sandbox()]
    assert list(ledger.containers) == [full_container()]
    assert await ledger.meta("boot_id") == "x"
    assert await ledger.meta("other") is None
    await ledger.close()


async def test_records_are_found_by_id_prefix_name_and_owner(node):
    table = node.parts.ledger.sandboxes
    for identifier, name in ((A, "one"), (B, "two")):
        await table.add(full_sandbox(identifier, name))
    await node.parts.ledger.containers.add(full_container())
    with pytest.raises(InvalidArgument, match="sandbox ID prefix a is ambiguous"):
        table.find("a")
    assert table.find("") is None
    assert table.get("a1").id == A
    assert table.named(("two", "default", "uid-two", 0)).id == B
    assert [c.id for c in node.parts.ledger.containers.of(A)] == [C]
    assert node.parts.ledger.containers.of(B) == []
    with pytest.raises(NotFound):
        table.get("f")
    with pytest.raises(InvalidArgument):
        table.get("../x")


async def test_name_is_taken_until_its_record_is_dropped(node):
    table = node.parts.ledger.sandboxes
    first = full_sandbox(A)
    await table.add(first)
    with pytest.raises(AlreadyExists, match=A):
        await table.add(full_sandbox(B))
    await table.drop(first)
    await table.drop(first)
    await table.add(full_sandbox(B))
    assert table.find(A) is None
    await table.save(first)
    assert [s.id for s in (await node.restart()).ledger.sandboxes] == [B], "a dropped record stays dropped"


async def test_save_during_a_drop_does_not_restore_the_row(node):
    table, record = node.parts.ledger.sandboxes, full_sandbox()
    await table.add(record)
    await asyncio.gather(table.drop(record), table.save(record))
    assert list((await node.restart()).ledger.sandboxes) == []


async def test_intent_is_not_visible(node):
    await node.parts.ledger.sandboxes.add(Sandbox(A, "runc", pod_config(), 1))
    with pytest.raises(NotFound):
        node.parts.ledger.sandboxes.get(A)
    assert node.parts.ledger.sandboxes.find(A) is not None


async def test_second_daemon_is_refused(node):
    with pytest.raises(FailedPrecondition, match="another noderuntime already uses"):
        Ledger(node.directory / "state")


async def test_damaged_ledger_is_one_clear_error(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(FailedPrecondition, match=r"cannot be read .* move it away"):
        Ledger(tmp_path)
    (tmp_path / "ledger.db").unlink()
    await Ledger(tmp_path).close()  # the lock was let go


DAMAGE = {
    "root": "nonsense",
    "monitor": "1 2 3",
    "ips": "no JSON",
    "config": b"\xff\xff",
}


@pytest.mark.parametrize("column", DAMAGE)
async def test_ledger_ignores_and_keeps_an_unreadable_row(tmp_path, caplog, column):
    ledger = Ledger(tmp_path)
    await ledger.sandboxes.add(full_sandbox())
    await ledger.sandboxes.add(full_sandbox(B, "other"))
    await ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute(f"UPDATE sandboxes SET {column} = ? WHERE id = ?", [DAMAGE[column], A])
    ledger = Ledger(tmp_path)
    assert list(ledger.sandboxes) == [full_sandbox(B, "other")]
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", "unreadable ledger row ignored")
    ]
    assert caplog.records[0].noderuntime_values["id"] == A
    await ledger.sandboxes.add(full_sandbox(C, "web"))
    await ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        kept = connection.execute(f"SELECT {column} FROM sandboxes WHERE id = ?", [A]).fetchall()
    assert kept == [(DAMAGE[column],)]


async def test_failed_write_removes_the_new_record(node):
    ledger = node.parts.ledger
    await ledger.set_meta("x", "y")
    connection = sqlite3.connect(node.directory / "state/ledger.db")
    with connection:
        connection.execute("DROP TABLE sandboxes")
    connection.close()
    with pytest.raises(HostError, match="writing the ledger"):
        await ledger.sandboxes.add(full_sandbox())
    assert ledger.sandboxes.find(A) is None
