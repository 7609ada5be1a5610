import signal
import subprocess
import sys

import pytest

from noderuntime.core import loop
from noderuntime.core.blocking import apart

HANGING = {
    "apart": "apart(hang, what='hang', seconds=math.inf)",
    "past its deadline": "apart(hang, what='hang', seconds=0.01)",
    "lane": "FILES.run(hang)",
    "lookup": "asyncio.get_running_loop().getaddrinfo('example.invalid', 80)",
    "cleanup": "cleanup()",
}
PROGRAM = """
import asyncio, math, os, signal, socket, threading
from noderuntime.core import loop, tasks
from noderuntime.core.blocking import FILES, apart

def hang(*arguments, **options):
    os.write(1, b"hangs\\n")
    threading.Event().wait()

async def cleanup():
    try:
        await asyncio.sleep(60)
    finally:
        await apart(hang, what="hang", seconds=math.inf)

socket.getaddrinfo = hang

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    hanging = tasks.start({hanging}, name="hangs")
    await asyncio.sleep(0)
    os.write(1, b"runs\\n")
    await stop.wait()
    return 7

print(loop.run(main()))
"""


@pytest.mark.parametrize("hanging", HANGING.values(), ids=HANGING)
def test_process_exits_though_a_call_hangs(hanging):
    program = PROGRAM.replace("{hanging}", hanging)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with process:
        lines = {process.stdout.readline().strip()}
        if hanging != "cleanup()":
            lines.add(process.stdout.readline().strip())
            assert lines == {"runs", "hangs"}
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


def test_run_returns_the_result_and_raises_the_error():
    async def fail():
        raise ValueError("words")

    assert loop.run(apart(lambda: 7, what="count")) == 7
    with pytest.raises(ValueError, match="words"):
        loop.run(fail())
