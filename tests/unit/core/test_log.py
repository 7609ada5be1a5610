import asyncio
import logging

import pytest

from noderuntime.core import log


@pytest.fixture(autouse=True)
def _restore_root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_an_event_is_one_line_of_key_value_pairs(capsys, monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    log.configure("info")
    log.get("noderuntime.lifecycle.pods.run").info("sandbox runs", sandbox="ab12", ms=4)
    line = capsys.readouterr().err
    assert line == 'level=info logger=lifecycle.pods.run msg="sandbox runs" sandbox=ab12 ms=4\n'


@pytest.mark.parametrize("hostile", ["a\nlevel=error", 'quote"', "\x1b[2J", "\u2028", "", "x" * 5000])
def test_hostile_values_stay_on_their_line(capsys, hostile):
    log.configure("info")
    log.get("noderuntime.x").warning("seen", value=hostile)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.isascii()
    assert "\x1b" not in written
    assert len(written) < 3000


def test_lines_have_priorities_under_systemd(capsys, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.configure("info")
    log.get("noderuntime.x").error("broken")
    assert capsys.readouterr().err.startswith("<3>level=error ")


def test_levels_below_the_configured_one_are_silent(capsys):
    log.configure("warning")
    log.get("noderuntime.x").info("not output")
    assert capsys.readouterr().err == ""


def test_an_exception_carries_its_traceback(capsys):
    log.configure("info")
    try:
        raise ValueError("boom")
    except ValueError:
        log.get("noderuntime.x").exception("failed")
    written = capsys.readouterr().err
    assert "ValueError: boom" in written
    assert written.count("\n") == 1


async def test_bound_keys_are_inherited_by_tasks_and_threads(capsys, monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    log.configure("info")
    logger = log.get("noderuntime.x")

    async def work():
        log.bind(pod="shop/web", sandbox="ab")
        logger.info("one", ms=4)
        await asyncio.to_thread(logger.info, "two")
        await asyncio.create_task(child())
        log.bind(pod="shop/db")
        logger.info("four")

    async def child():
        logger.info("three", sandbox="cd")

    await asyncio.create_task(work())
    logger.info("five")
    assert capsys.readouterr().err.splitlines() == [
        "level=info logger=x msg=one pod=shop/web sandbox=ab ms=4",
        "level=info logger=x msg=two pod=shop/web sandbox=ab",
        "level=info logger=x msg=three pod=shop/web sandbox=cd",
        "level=info logger=x msg=four pod=shop/db",
        "level=info logger=x msg=five",
    ]


def test_set_level_applies_at_once(capsys):
    log.configure("warning")
    log.set_level("debug")
    log.get("noderuntime.x").debug("output")
    log.set_level("error")
    log.get("noderuntime.x").warning("not output")
    assert capsys.readouterr().err.count("\n") == 1
