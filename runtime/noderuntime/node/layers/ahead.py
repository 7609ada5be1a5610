"""Reading ahead: the next blocks are read, decompressed and hashed while files are written.

All of that goes on without Python's global lock, so that two processors are busy with one layer.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Semaphore, Thread

_BLOCKS = 8
"""How many wait to be taken, at most."""


def ahead(blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Yield the blocks, or raise what they raise, while a thread gets the next ones.

    The generator must be closed: then the thread has ended, and its blocks are asked for no more.
    """
    ready: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
    room = Semaphore(_BLOCKS)
    wanted = True

    def pump() -> None:
        try:
            for block in blocks:
                room.acquire()
                if not wanted:
                    return
                ready.put(block)
            ready.put(None)
        except BaseException as error:  # it belongs to whoever takes the blocks
            ready.put(error)

    thread = Thread(target=pump, name="ahead")
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            room.release()
            yield found
    finally:
        wanted = False
        room.release()
        thread.join()
