import json
import sqlite3
from contextlib import closing

import pytest

from noderuntime.cli import run
from noderuntime.core.errors import FailedPrecondition, NotFound
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.dump import dump
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.ledger.records import Container, Sandbox


async def filled(directory):
    ledger = Ledger(directory)
    pod = api_pb2.PodSandboxConfig(metadata=api_pb2.PodSandboxMetadata(name="web", namespace="default"))
    await ledger.sandboxes.add(Sandbox("5" * 64, "gvisor", pod, created_at=7))
    config = api_pb2.ContainerConfig(metadata=api_pb2.ContainerMetadata(name="app"))
    config.envs.add(key="PASSWORD", value=b"s3cret")
    await ledger.containers.add(Container("c" * 64, "5" * 64, config, created_at=8, exit_code=3))
    await ledger.set_meta("boot_id", "a boot")
    return ledger


async def test_dump_shows_all_records_without_secrets(tmp_path):
    ledger = await filled(tmp_path)
    await ledger.close()
    shown = dump(tmp_path)
    (sandbox,), (container,) = shown["sandboxes"], shown["containers"]
    assert (sandbox["id"], sandbox["handler"]) == ("5" * 64, "gvisor")
    assert sandbox["config"]["metadata"] == {"name": "web", "namespace": "default"}
    assert container["exit_code"] == 3
    assert container["config"]["envs"] == [{"key": "PASSWORD"}]
    assert {"key": "boot_id", "value": "a boot"} in shown["meta"]
    assert "s3cret" not in json.dumps(shown)


async def test_dump_works_beside_a_running_daemon(tmp_path):
    ledger = await filled(tmp_path)
    assert len(dump(tmp_path)["containers"]) == 1
    await ledger.close()


async def test_dump_shows_a_damaged_column_in_hexadecimal(tmp_path):
    await (await filled(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute("UPDATE sandboxes SET config = x'ffff'")
    assert dump(tmp_path)["sandboxes"][0]["config"] == "ffff"


async def test_command_prints_json(tmp_path, capsys):
    await (await filled(tmp_path)).close()
    assert run(["ledger", "dump", "--state-dir", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] > 0


def test_dump_of_a_missing_or_foreign_file_is_an_error(tmp_path, capsys):
    with pytest.raises(NotFound, match=r"ledger\.db"):
        dump(tmp_path)
    (tmp_path / "ledger.db").write_text("no database at all, but long enough to be read as one")
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        dump(tmp_path)
    assert run(["ledger", "dump", "--state-dir", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err
