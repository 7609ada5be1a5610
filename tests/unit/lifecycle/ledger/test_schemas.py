"""One schema forward and back: files of every version, and a file that a newer daemon changed."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from test_ledger import A, B, C, full_container, full_sandbox

from noderuntime.core.database import Schema, copy, schema_of
from noderuntime.core.errors import FailedPrecondition
from noderuntime.images.store import catalog
from noderuntime.images.store.catalog import Catalog
from noderuntime.images.store.image_records import Layer
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.ledger.migrations import STEPS
from noderuntime.node.host.base import ProcessRef

RELEASED = Path(__file__).parent / "released"
ADDED = re.compile(r"ALTER TABLE \w+ ADD COLUMN (\w+)")
ADDITIVE = re.compile(r"ALTER TABLE \w+ ADD COLUMN |CREATE (TABLE|INDEX) ")
LAYER = Layer("sha256:1", 1, "", opaque=False, size=1, bytes=1, inodes=1, unfinished_at=0, boot="")


def execute(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def value(path: Path, sql: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchone()[0]


def fills_only(columns: set[str], statement: str) -> bool:
    return statement.startswith("UPDATE ") and set(re.findall(r"(\w+) = ", statement)) <= columns


@pytest.mark.parametrize("version", range(1, len(STEPS) + 1))
async def test_ledger_of_every_schema_is_migrated(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.db"
    execute(path, "".join(STEPS[:version]) + f"PRAGMA user_version = {version};")
    execute(
        path, f"INSERT INTO sandboxes VALUES ('{A}', 'runc', x'', 1, 2, 0, '', '[]', x'', NULL, NULL, 0);"
    )
    ledger = Ledger(tmp_path)
    assert [sandbox.id for sandbox in ledger.sandboxes] == [A]
    await ledger.containers.add(full_container())
    await ledger.close()
    assert schema_of(path).version == len(STEPS)


@pytest.mark.parametrize("file", sorted(RELEASED.glob("*.sql")), ids=lambda file: file.stem)
async def test_ledger_of_a_released_version_is_read(tmp_path: Path, file: Path) -> None:
    execute(tmp_path / "ledger.db", file.read_text())
    ledger = Ledger(tmp_path)
    (sandbox,), (container,) = ledger.sandboxes, ledger.containers
    assert (sandbox.id, sandbox.config.metadata.name, sandbox.ips) == (A, "web", ("10.0.0.1", "fd00::1"))
    assert (container.id, container.exit_code, container.monitor) == (C, -1, None)
    assert container.process == ProcessRef(1, 2)
    await ledger.close()


async def test_ledger_of_the_next_schema_is_used_and_kept(tmp_path: Path) -> None:
    path, sandbox = tmp_path / "ledger.db", full_sandbox()
    ledger = Ledger(tmp_path)
    await ledger.sandboxes.add(sandbox)
    await ledger.set_meta("handlers", "{}")
    await ledger.close()
    newer = len(STEPS) + 1
    execute(
        path,
        "ALTER TABLE sandboxes ADD COLUMN color TEXT NOT NULL DEFAULT 'none';"
        "UPDATE sandboxes SET color = 'red';"
        "ALTER TABLE meta ADD COLUMN color TEXT NOT NULL DEFAULT 'none'; UPDATE meta SET color = 'red';"
        f"CREATE TABLE colors (name TEXT); INSERT INTO colors VALUES ('red'); PRAGMA user_version = {newer};",
    )

    ledger = Ledger(tmp_path)
    assert list(ledger.sandboxes) == [sandbox]
    sandbox.stopped_at = 77
    await ledger.sandboxes.save(sandbox)
    await ledger.sandboxes.add(full_sandbox(B, "other"))
    await ledger.set_meta("handlers", "{ }")
    await ledger.close()

    assert value(path, f"SELECT color || stopped_at FROM sandboxes WHERE id = '{A}'") == "red77"
    assert value(path, f"SELECT color FROM sandboxes WHERE id = '{B}'") == "none"
    assert value(path, "SELECT color || value FROM meta") == "red{ }"
    assert value(path, "SELECT name FROM colors") == "red"
    assert schema_of(path) == Schema(newer, 0)


async def test_ledger_that_needs_a_newer_daemon_is_refused(tmp_path: Path) -> None:
    await Ledger(tmp_path).close()
    execute(tmp_path / "ledger.db", "PRAGMA user_version = 99; PRAGMA application_id = 98;")
    before = (tmp_path / "ledger.db").read_bytes()
    with pytest.raises(FailedPrecondition, match=r"has schema 99.*support for schema 98.*install a newer"):
        Ledger(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes() == before


async def test_catalog_of_the_next_schema_is_used_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"

    def opened() -> Catalog:
        return Catalog(path, lambda: {1}, "boot", lambda _: None)

    images = opened()
    await images.add_layer(LAYER)
    await images.close()
    execute(
        path,
        "ALTER TABLE layers ADD COLUMN color TEXT NOT NULL DEFAULT 'none'; UPDATE layers SET color = 'red';"
        f"PRAGMA user_version = {len(catalog.STEPS) + 1};",
    )
    images = opened()
    assert images.layers() == [LAYER]
    await images.add_layer(LAYER)
    await images.close()
    assert value(path, "SELECT color FROM layers") == "red"


@pytest.mark.parametrize("steps", [STEPS, catalog.STEPS], ids=["ledger", "image catalog"])
def test_step_is_additive_or_names_its_oldest_reader(steps: tuple[str, ...]) -> None:
    for number, step in enumerate(steps[1:], 2):
        statements = [" ".join(part.split()) for part in step.split(";") if part.strip()]
        added = {name for statement in statements for name in ADDED.findall(statement)}
        if not all(ADDITIVE.match(one) or fills_only(added, one) for one in statements):
            assert f"PRAGMA application_id = {number}" in statements


async def test_copy_of_an_open_ledger_has_its_records(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    await ledger.sandboxes.add(full_sandbox(C))
    (tmp_path / "copy").mkdir()
    assert copy(tmp_path / "ledger.db", tmp_path / "copy/ledger.db") == Schema(len(STEPS), 0)
    await ledger.close()
    copied = Ledger(tmp_path / "copy")
    assert [sandbox.id for sandbox in copied.sandboxes] == [C]
    await copied.close()


async def test_row_of_an_older_daemon_gets_what_it_lacks(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    container = full_container()
    await ledger.containers.add(container)
    await ledger.close()
    execute(tmp_path / "ledger.db", "UPDATE containers SET image_ref = '';")
    ledger = Ledger(tmp_path)
    (found,) = ledger.containers
    assert found.image_ref == "sha256:1"
    await ledger.close()
