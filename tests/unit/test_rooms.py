"""What only one module may do: start tasks (core.tasks), and leave the event loop (core.blocking)."""

import ast
from pathlib import Path

import noderuntime

ROOT = Path(noderuntime.__file__).parent
BANNED = {"create_task", "ensure_future", "shield", "to_thread", "run_in_executor", "ThreadPoolExecutor"}
ROOMS = {ROOT / "core/tasks.py", ROOT / "core/blocking.py"}


def banned_in(source):
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "attr", None) or getattr(node, "id", None)
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in BANNED)
        elif name in BANNED:
            yield node.lineno, name


def test_tasks_and_threads_start_in_their_rooms_only():
    files = [path for path in ROOT.rglob("*.py") if path not in ROOMS and not path.stem.endswith("_pb2_grpc")]
    assert len(files) > 200
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files
        for line, name in banned_in(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_rule_finds_what_it_bans():
    source = "import asyncio\nfrom asyncio import shield\ngroup.create_task(work())\nasyncio.to_thread(f)\n"
    assert [name for _, name in banned_in(source)] == ["shield", "create_task", "to_thread"]
