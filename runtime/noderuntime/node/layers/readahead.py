"""Reads ahead: a thread reads, decompresses and hashes the next blocks while files are written.

Those operations release Python's global interpreter lock, so one layer is unpacked on two processors.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Semaphore, Thread

_BLOCKS = 8
"""Maximum number of blocks in the queue."""


def read_ahead(blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Yield the blocks, which a thread reads in advance. An exception of the iteration is raised here.

    The generator must be closed. Closing waits for the thread, which iterates no further.
    """
    ready: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
    slots = Semaphore(_BLOCKS)
    running = True

    def pump() -> None:
        try:
            for block in blocks:
                slots.acquire()
                if not running:
                    return
                ready.put(block)
            ready.put(None)
        except BaseException as error:  # raised in the consumer's thread
            ready.put(error)

    thread = Thread(target=pump, name="read-ahead")
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            slots.release()
            yield found
    finally:
        running = False
        slots.release()
        thread.join()
