"""Calls that few modules may make: start tasks and threads, compare handler names, set the umask.

No module may leave an asynchronous generator open.
"""

import ast
from pathlib import Path

import noderuntime

ROOT = Path(noderuntime.__file__).parent
GENERATED = {ROOT / "cri/v1/api_pb2_grpc.py"}
BANNED = {"create_task", "ensure_future", "shield", "to_thread", "run_in_executor", "ThreadPoolExecutor"}
ALLOWED = {ROOT / "core/tasks.py", ROOT / "core/blocking.py"}
HANDLERS = {"gvisor", "runc", "runsc"}
UMASK = {ROOT / "cli/serve.py", ROOT / "node/layers/worker.py"}
"""Where a process sets its umask before it has threads."""
ITERATORS = {"iter_any", "retrying"}
"""Of libraries: asynchronous iterators that are no generators and need no close."""


def found(rule, *, except_in=frozenset()):
    """Return what a rule finds in the modules of the package, one line each."""
    files = [path for path in ROOT.rglob("*.py") if except_in.isdisjoint((path, *path.parents))]
    assert len(files) > 200
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files
        for line, name in rule(path.read_text(encoding="utf-8"))
    ]


def banned_in(source, banned=frozenset(BANNED)):
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "attr", None) or getattr(node, "id", None)
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in banned)
        elif name in banned:
            yield node.lineno, name


def test_tasks_and_threads_start_in_two_modules_only():
    assert found(banned_in, except_in=ALLOWED | GENERATED) == []


def test_rule_finds_what_it_bans():
    source = "import asyncio\nfrom asyncio import shield\ngroup.create_task(work())\nasyncio.to_thread(f)\n"
    assert [name for _, name in banned_in(source)] == ["shield", "create_task", "to_thread"]


def compared_handlers(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.MatchValue):
            names = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            yield from ((node.lineno, name) for name in sorted(names & HANDLERS))


def test_only_executors_ask_for_the_name_of_a_handler():
    assert found(compared_handlers, except_in={ROOT / "node/executor"}) == []


def test_handler_rule_finds_what_it_bans():
    source = (
        'a.type == "gvisor"\nb in ("runc", "crun")\nmatch c:\n    case "runsc":\n        pass\nd = "gvisor"\n'
    )
    assert list(compared_handlers(source)) == [(1, "gvisor"), (2, "runc"), (4, "runsc")]


def test_umask_is_set_where_a_process_starts_only():
    assert found(lambda source: banned_in(source, {"umask"}), except_in=UMASK) == []


def unclosed_generators(source):
    """Yield the loops over the result of a call, which nothing closes if the loop is left early."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFor) or (isinstance(node, ast.comprehension) and node.is_async):
            called = getattr(node.iter, "func", None)
            name = getattr(called, "attr", None) or getattr(called, "id", None)
            if called is not None and name not in ITERATORS:
                yield node.iter.lineno, name


def test_asynchronous_generators_are_closed():
    assert found(unclosed_generators) == []


def test_generator_rule_finds_what_it_bans():
    source = """
async def f():
    async for a in b.watch():
        pass
    c = [d async for d in e()]
    async with aclosing(g()) as h:
        async for i in h:
            pass
    async for chunk in content.iter_any():
        pass
"""
    assert list(unclosed_generators(source)) == [(3, "watch"), (5, "e")]
