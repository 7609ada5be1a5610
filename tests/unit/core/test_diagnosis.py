import asyncio

from noderuntime.core import diagnosis
from noderuntime.core.tasks import Work, start


async def inner(gate):
    await gate.wait()


async def outer(work, gate):
    async with work.lock("sandbox ab12"):
        await inner(gate)


async def test_report_names_tasks_stacks_and_lock_holders(caplog):
    caplog.set_level("INFO")
    gate, work = asyncio.Event(), Work()
    task = start(outer(work, gate), name="StopPodSandbox ab12")
    await asyncio.sleep(0)
    diagnosis.report()
    found = [(record.message, record.noderuntime_values) for record in caplog.records]
    (stack,) = [
        values["stack"]
        for _, values in found
        if values.get("task") == "StopPodSandbox ab12" and "stack" in values
    ]
    assert stack.startswith("outer ")
    assert "> inner " in stack
    assert ("lock held", {"lock": "sandbox ab12", "task": "StopPodSandbox ab12"}) in found
    assert "files" in [values["lane"] for message, values in found if message == "lane"]
    gate.set()
    await task
