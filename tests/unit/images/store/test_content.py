import asyncio
import hashlib
import os
import time

import pytest

from noderuntime.core.errors import DataLoss, NotFound, ResourceExhausted, Unavailable
from noderuntime.images.store.content import Content


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


DOCUMENT = b'{"a": "document"}'
LAYER = os.urandom(3 << 20)


@pytest.fixture
def content(tmp_path):
    return Content(tmp_path)


def partial(tmp_path):
    return {path.name: path.stat().st_size for path in (tmp_path / "partial").iterdir()}


async def feed(ingest, data=LAYER, piece=100_000):
    for at in range(ingest.offset, len(data), piece):
        await ingest.write(data[at : at + piece])


async def interrupt(content, error):
    """Write two thirds of the layer, then fail."""
    async with content.ingest(digest(LAYER), len(LAYER)) as ingest:
        await feed(ingest, LAYER[: 2 << 20])
        await ingest.growth.beyond(1 << 20)
        raise error


async def test_a_stored_document_is_read_back(content, tmp_path):
    assert await content.get(digest(DOCUMENT)) is None
    await content.put(digest(DOCUMENT), DOCUMENT)
    await content.put(digest(DOCUMENT), DOCUMENT)
    assert await content.get(digest(DOCUMENT)) == DOCUMENT
    assert [path.name for path in (tmp_path / "blobs/sha256").iterdir()] == [digest(DOCUMENT)[7:]]


async def test_a_document_with_a_wrong_digest_is_not_stored(content, tmp_path):
    with pytest.raises(DataLoss, match="the content does not have the digest sha256:"):
        await content.put(digest(b"other"), DOCUMENT)
    assert list((tmp_path / "blobs/sha256").iterdir()) == []


async def test_a_corrupt_document_is_removed(content, tmp_path):
    await content.put(digest(DOCUMENT), DOCUMENT)
    (tmp_path / "blobs/sha256" / digest(DOCUMENT)[7:]).write_bytes(b"")
    assert await content.get(digest(DOCUMENT)) is None
    assert list((tmp_path / "blobs/sha256").iterdir()) == []


async def test_only_needed_documents_are_kept(content, tmp_path):
    await content.put(digest(DOCUMENT), DOCUMENT)
    await content.put(digest(b"other"), b"other")
    (tmp_path / "blobs/sha256/half.new").touch()
    assert await content.drop_documents(lambda: {digest(DOCUMENT)}) == 2
    assert await content.get(digest(DOCUMENT)) == DOCUMENT


async def test_a_layer_is_readable_while_written_and_removed_at_end(content, tmp_path):
    async with content.ingest(digest(LAYER), len(LAYER)) as ingest:
        assert (ingest.offset, (await ingest.hasher()).hexdigest()) == (0, hashlib.sha256().hexdigest())
        await feed(ingest)
        assert ingest.offset == len(LAYER)
        size, complete = await ingest.growth.beyond(0)
        assert size > 1 << 20
        assert not complete
        assert os.pread(ingest.growth.fileno(), size, 0) == LAYER[:size]
        await ingest.finish()
        assert await ingest.growth.beyond(size) == (len(LAYER), True)
        assert os.pread(ingest.growth.fileno(), len(LAYER), 0) == LAYER
    assert partial(tmp_path) == {}


async def test_an_interrupted_layer_is_resumed(content, tmp_path):
    with pytest.raises(Unavailable):
        await interrupt(content, Unavailable("interrupted"))
    held = partial(tmp_path)[digest(LAYER)[7:]]
    assert held > 1 << 20
    async with content.ingest(digest(LAYER), len(LAYER)) as ingest:
        assert ingest.offset == ingest.resumed == held
        assert (await ingest.growth.beyond(0)) == (held, False)
        assert (await ingest.hasher()).hexdigest() == hashlib.sha256(LAYER[:held]).hexdigest()
        await feed(ingest)
        await ingest.finish()
        assert os.pread(ingest.growth.fileno(), len(LAYER), 0) == LAYER
    assert partial(tmp_path) == {}


async def test_a_cancelled_layer_is_kept_and_its_descriptors_closed(content, tmp_path):
    begun = asyncio.Event()

    async def pull():
        async with content.ingest(digest(LAYER), len(LAYER)) as ingest:
            await feed(ingest)
            begun.set()
            await asyncio.Event().wait()

    before = len(os.listdir("/proc/self/fd"))
    task = asyncio.create_task(pull())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(partial(tmp_path)) == 1
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("error", [DataLoss("lies"), ResourceExhausted("full"), NotFound("gone")])
async def test_a_layer_is_removed_after_a_permanent_error(content, tmp_path, error):
    with pytest.raises(type(error)):
        await interrupt(content, error)
    assert partial(tmp_path) == {}


@pytest.mark.parametrize("restart", [True, False])
async def test_an_invalid_partial_layer_is_truncated(content, tmp_path, restart):
    (tmp_path / "partial" / digest(LAYER)[7:]).write_bytes(b"x" * (4 if restart else len(LAYER) + 1))
    async with content.ingest(digest(LAYER), len(LAYER), restart=restart) as ingest:
        assert ingest.offset == 0
    assert partial(tmp_path) == {}


async def test_a_waiting_caller_gets_the_same_layers_bytes(content, tmp_path):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first():
        async with content.ingest(digest(LAYER), len(LAYER)) as ingest:
            entered.set()
            await leave.wait()
            await feed(ingest)
            await ingest.finish()

    async def second():
        async with content.ingest(digest(LAYER), len(LAYER)) as ingest:
            return ingest.offset

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await entered.wait()
        offset = group.create_task(second())
        await asyncio.sleep(0)
        assert not offset.done()
        leave.set()
    assert offset.result() == len(LAYER)
    assert partial(tmp_path) == {}


async def test_old_partial_layers_are_removed_unless_in_use(content, tmp_path):
    old, young = digest(b"old"), digest(b"young")
    for one, age in ((old, 100), (young, 1)):
        path = tmp_path / "partial" / one[7:]
        path.write_bytes(b"part")
        os.utime(path, (time.time() - age,) * 2)
    async with content.ingest(digest(LAYER), 10):
        assert await content.drop_partial(lambda _digest, age: age > 50) == 1
        assert set(partial(tmp_path)) == {young[7:], digest(LAYER)[7:]}
        assert await content.drop_partial(lambda digest, _age: digest == young) == 1
        assert set(partial(tmp_path)) == {digest(LAYER)[7:]}


async def test_size_counts_blocks_and_files(content):
    await content.put(digest(DOCUMENT), DOCUMENT)
    size, files = await content.size()
    assert (size > 0, files) == (True, 1)
