"""What a runtime's answers are to agent, switch and command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from noderuntime.core import errors
from noderuntime.criclient import CriClient


class Runtime(grpc.GenericRpcHandler):
    """Answers every call with one status."""

    def __init__(self) -> None:
        self.status = (grpc.StatusCode.OK, "")

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def serve(raw: bytes, context: Any) -> bytes:
            await context.abort(*self.status)
            return b""

        return grpc.unary_unary_rpc_method_handler(serve)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest_asyncio.fixture
async def client(runtime: Runtime, tmp_path: Path) -> AsyncIterator[CriClient]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([runtime])
    server.add_insecure_port(f"unix:{tmp_path}/cri.sock")
    await server.start()
    async with CriClient(tmp_path / "cri.sock") as client:
        yield client
    await server.stop(None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgument),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unimplemented),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.FailedPrecondition),
        (grpc.StatusCode.INTERNAL, errors.Internal),
        (grpc.StatusCode.UNKNOWN, errors.Internal),
    ],
)
async def test_a_status_is_an_error_with_the_runtimes_words_as_one_line(
    client: CriClient, runtime: Runtime, code: grpc.StatusCode, kind: type[errors.NoderuntimeError]
) -> None:
    runtime.status = code, "two\nlines" + "x" * 1000
    with pytest.raises(kind) as caught:
        await client.container("c")
    assert type(caught.value) is kind
    assert str(caught.value).startswith("two linesxx")
    assert len(str(caught.value)) <= 300


async def test_a_status_without_words_names_the_call(client: CriClient, runtime: Runtime) -> None:
    runtime.status = grpc.StatusCode.UNKNOWN, ""
    with pytest.raises(errors.Internal, match="ImageFsInfo failed: UNKNOWN"):
        await client.image_filesystems()


async def test_a_runtime_that_says_that_it_cannot_is_told_from_one_that_is_not_there(
    client: CriClient, runtime: Runtime, tmp_path: Path
) -> None:
    runtime.status = grpc.StatusCode.UNAVAILABLE, "the upstream is away"
    with pytest.raises(errors.Unavailable, match=r"cri\.sock: the upstream is away$"):
        await client.sandboxes()
    async with CriClient(tmp_path / "none.sock") as nobody:
        with pytest.raises(errors.Unavailable, match=r"none\.sock: nobody answers: No such file"):
            await nobody.sandboxes()
