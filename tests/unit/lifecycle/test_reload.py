"""SIGHUP: what changes in a running daemon, what does not, and what the log says of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from fakes import Node, pod_config
from fakeworld import FakeHost

from noderuntime.config import Config, ImagesConfig
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, HostError, InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.pods.remove import remove_pod_sandbox
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.reload import reload, reload_on
from noderuntime.lifecycle.used_handlers import remember
from noderuntime.node.executor.gvisor import GvisorExecutor
from noderuntime.node.executor.runc import RuncExecutor


@pytest.fixture(autouse=True)
def _keep_root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def _wanted(node: Node, **tables: Any) -> Config:
    """Return the configuration in force with other tables."""
    return Config.model_validate(node.parts.config.model_dump() | tables)


def _handlers(node: Node, **changes: dict[str, str] | None) -> dict[str, Any]:
    handlers = node.parts.config.model_dump()["handlers"] | changes
    return {name: handler for name, handler in handlers.items() if handler is not None}


async def test_reload_adds_a_handler_and_keeps_the_others(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info")
    before = dict(node.parts.executors)
    handlers = _handlers(node, next={"type": "runc", "path": "/opt/next"})
    await reload(node.parts, _wanted(node, handlers=handlers))
    assert list(node.parts.executors) == ["runc", "gvisor", "next"]
    assert {name: node.parts.executors[name] for name in before} == before
    assert isinstance(node.parts.executor("next"), RuncExecutor)
    assert node.parts.config.handlers["next"].path == Path("/opt/next")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('msg="configuration reloaded" log_level=info added=next changed="" removed=""')


async def test_added_handler_uses_the_current_directories(node: Node) -> None:
    handlers = _handlers(node, next={"type": "runc", "path": "/opt/next"})
    await reload(node.parts, _wanted(node, handlers=handlers, server={"run_dir": "/run/after/a/restart"}))
    flags = node.parts.executor("next").monitor_runtime("c", "s", is_root=False).flags
    assert str(node.parts.config.server.run_dir / "runc") in flags


async def test_changed_path_applies_to_running_pods(node: Node) -> None:
    await run_pod_sandbox(node.parts, pod_config(), "gvisor")
    handlers = _handlers(node, gvisor={"type": "gvisor", "path": "/opt/new"})
    await reload(node.parts, _wanted(node, handlers=handlers))
    changed = node.parts.executor("gvisor")
    assert isinstance(changed, GvisorExecutor)
    assert changed.monitor_runtime("c", "s", is_root=True).path == Path("/opt/new")


@pytest.mark.parametrize("change", [None, {"type": "gvisor", "path": "/bin/fake"}])
async def test_reload_refuses_to_remove_a_used_handler(node: Node, change: dict[str, str] | None) -> None:
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    before, executors = node.parts.config, dict(node.parts.executors)
    wanted = _wanted(node, handlers=_handlers(node, runc=change), log={"level": "debug"})
    with pytest.raises(FailedPrecondition, match=r"handler runc .* pods use it"):
        await reload(node.parts, wanted)
    assert node.parts.config is before, "nothing changes, not even the level"
    assert node.parts.executors == executors
    await remove_pod_sandbox(node.parts, pod)
    await reload(node.parts, wanted)
    assert ("runc" in node.parts.executors) == (change is not None)


@pytest.mark.parametrize("own_users", [False, True], ids=["node's users", "own users"])
@pytest.mark.parametrize("steps", range(8))
async def test_handler_is_removed_before_a_pod_starts_or_not_at_all(
    node: Node, steps: int, own_users: bool
) -> None:
    """A record whose handler is gone could never be undone, at whatever point of a call that happens."""
    config = pod_config()
    if own_users:
        users = config.linux.security_context.namespace_options.userns_options
        users.mode = api_pb2.POD
        users.uids.add(host_id=os.getuid(), length=1000)
        users.gids.add(host_id=os.getgid(), length=1000)
    running = asyncio.create_task(run_pod_sandbox(node.parts, config, "runc"))
    for _ in range(steps):
        await asyncio.sleep(0)
    try:
        await reload(node.parts, _wanted(node, handlers=_handlers(node, runc=None)))
    except FailedPrecondition:
        await remove_pod_sandbox(node.parts, await running)
    else:
        with pytest.raises(InvalidArgument, match="no runtime handler"):
            await running
    assert node.left() == {}


async def test_reload_applies_the_level_and_names_the_rest(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info")
    before = node.parts.config
    wanted = _wanted(
        node,
        log={"level": "warning"},
        upstream={"socket": "/run/up.sock"},
        network={"conf_dir": "/elsewhere"},
    )
    await reload(node.parts, wanted)
    assert logging.getLogger().level == logging.WARNING
    assert (node.parts.config.network, node.parts.config.upstream) == (before.network, before.upstream)
    (line,) = capsys.readouterr().err.splitlines()
    assert "need a restart" in line
    assert "keys=upstream,network.conf_dir" in line
    await reload(node.parts, wanted)
    assert "need a restart" in capsys.readouterr().err, "as long as they wait"


async def test_reload_applies_registry_settings(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    taken: list[ImagesConfig] = []
    node.parts.configure_images = taken.append
    live = {"certs_dirs": ["/c"], "credentials": "/auths", "search": ["own.example"], "pinned": ["pause"]}
    live |= {"max_image_size": "2TiB", "min_free_disk": 0, "http_redirects": False}
    await reload(node.parts, _wanted(node, images={**live, "namespace": "elsewhere"}))
    (images,) = taken
    assert images == node.parts.config.images
    assert images == ImagesConfig.model_validate(live), "and nothing else"
    assert "keys=images.namespace" in capsys.readouterr().err


async def test_reload_with_invalid_names_changes_nothing(node: Node) -> None:
    def refuse(_: ImagesConfig) -> None:
        raise InvalidArgument("no such name")

    before, executors = node.parts.config, dict(node.parts.executors)
    node.parts.configure_images = refuse
    handlers = _handlers(node, next={"type": "runc", "path": "/opt/next"})
    with pytest.raises(InvalidArgument, match="no such name"):
        await reload(node.parts, _wanted(node, handlers=handlers, images={"pinned": ["%"]}))
    assert (node.parts.config, node.parts.executors) == (before, executors)


async def test_sighup_reloads_and_an_invalid_file_changes_nothing(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info")
    path = tmp_path / "config.toml"
    path.write_text("[handlers.runc]\ntype='runc'\n")
    hangup = asyncio.Event()
    before = node.parts.config
    task = asyncio.create_task(reload_on(hangup, node.parts, path))
    try:
        hangup.set()
        await _logged(node, "refused")
        assert node.parts.config is before
        (line,) = capsys.readouterr().err.splitlines()
        assert "level=error" in line
        assert "handlers.runc.path" in line

        server = json.dumps(str(before.server.run_dir)), json.dumps(str(before.server.state_dir))
        path.write_text(
            f"[server]\nrun_dir={server[0]}\nstate_dir={server[1]}\n[handlers.only]\ntype='runc'\npath='/x'\n"
        )
        hangup.set()
        await _logged(node, "applied")
        assert list(node.parts.executors) == ["only"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _break_ledger(node: Node) -> None:
    with closing(sqlite3.connect(node.directory / "state/ledger.db")) as other:
        other.execute("ALTER TABLE meta RENAME TO lost")


def _repair_ledger(node: Node) -> None:
    with closing(sqlite3.connect(node.directory / "state/ledger.db")) as other:
        other.execute("ALTER TABLE lost RENAME TO meta")


def _break_images(node: Node, error: Exception) -> None:
    def refuse(_: ImagesConfig) -> None:
        raise error

    node.parts.configure_images = refuse


class _NoCgroups(FakeHost):
    """A host whose cgroups cannot be read, which the executor of gVisor does with systemd's driver."""

    def cgroup_version(self) -> Literal[1, 2]:
        raise HostError("read /sys/fs/cgroup", 5, "Input/output error")


def _break_executors(node: Node) -> None:
    node.parts.cgroup_driver = "systemd"
    node.parts.host = _NoCgroups(node.world)  # type: ignore[assignment]


_BREAKS: dict[str, tuple[Callable[[Node], None], str]] = {
    "executors": (_break_executors, "read /sys/fs/cgroup: Input/output error"),
    "ledger": (_break_ledger, "writing the ledger: no such table: meta"),
    "images": (lambda node: _break_images(node, InvalidArgument("no such name")), "no such name"),
    "bug": (lambda node: _break_images(node, RuntimeError("oops")), "RuntimeError: oops"),
}


@pytest.mark.parametrize("step", _BREAKS)
async def test_reload_that_fails_at_any_step_changes_nothing(
    node: Node, step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info")
    parts, path = node.parts, tmp_path / "config.toml"
    path.write_text(
        "[log]\nlevel='debug'\n[images]\npinned=['x']\n[handlers.gvisor]\ntype='gvisor'\npath='/new'\n"
    )
    await remember(parts.config, parts.ledger)
    taken: list[ImagesConfig] = []
    parts.configure_images = taken.append
    before, executors, known = parts.config, dict(parts.executors), await parts.ledger.meta("handlers")
    break_step, why = _BREAKS[step]
    break_step(node)
    hangup = asyncio.Event()
    hangup.set()
    task = asyncio.create_task(reload_on(hangup, parts, path))
    try:
        await _logged(node, "refused")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if step == "ledger":
        _repair_ledger(node)
    assert (parts.config, parts.executors, taken) == (before, executors, [])
    assert await parts.ledger.meta("handlers") == known
    assert logging.getLogger().level == logging.INFO
    (line,) = capsys.readouterr().err.splitlines()
    assert 'msg="the configuration was not reloaded' in line
    assert why in line


async def test_reload_is_refused_if_a_pod_begins_while_it_is_recorded(node: Node) -> None:
    parts = node.parts
    await remember(parts.config, parts.ledger)
    before, known = parts.config, await parts.ledger.meta("handlers")
    reloading = asyncio.create_task(reload(parts, _wanted(node, handlers=_handlers(node, runc=None))))
    pod = asyncio.create_task(run_pod_sandbox(parts, pod_config(), "runc"))
    with pytest.raises(FailedPrecondition, match="handler runc cannot be removed"):
        await reloading
    assert parts.config is before
    assert await parts.ledger.meta("handlers") == known
    await remove_pod_sandbox(parts, await pod)


async def test_reload_that_applied_is_not_reported_as_refused(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info")
    path = tmp_path / "config.toml"
    path.write_text("[handlers.runc]\ntype='runc'\npath='/new'\n")
    hangup = asyncio.Event()
    hangup.set()
    task = asyncio.create_task(reload_on(hangup, node.parts, path))
    try:
        await _logged(node, "applied")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert list(node.parts.executors) == ["runc"]
    assert list(json.loads(await node.parts.ledger.meta("handlers") or "")) == ["runc"]
    lines = capsys.readouterr().err
    assert 'msg="configuration reloaded"' in lines
    assert "was not reloaded" not in lines
    assert b'outcome="refused"' not in node.parts.metrics.text()


async def _logged(node: Node, outcome: str) -> None:
    wanted = f'noderuntime_config_reloads_total{{outcome="{outcome}"}} 1.0'.encode()
    async with asyncio.timeout(10):
        while wanted not in node.parts.metrics.text():
            await asyncio.sleep(0.01)
