"""Errors of the CRI client."""

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
    """A runtime that answers every call with one status."""

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
async def test_call_raises_the_error_of_the_status_as_one_line(
    client: CriClient, runtime: Runtime, code: grpc.StatusCode, kind: type[errors.NoderuntimeError]
) -> None:
    runtime.status = code, "two\nlines" + "x" * 1000
    with pytest.raises(kind) as caught:
        await client.container("c")
    assert type(caught.value) is kind
    assert str(caught.value).startswith("two linesxx")
    assert len(str(caught.value)) <= 300


async def test_call_error_without_a_message_names_the_method(client: CriClient, runtime: Runtime) -> None:
    runtime.status = grpc.StatusCode.UNKNOWN, ""
    with pytest.raises(errors.Internal, match="ImageFsInfo failed: UNKNOWN"):
        await client.image_filesystems()


async def test_unavailable_differs_for_a_missing_socket(
    client: CriClient, runtime: Runtime, tmp_path: Path
) -> None:
    runtime.status = grpc.StatusCode.UNAVAILABLE, "the upstream is unavailable"
    with pytest.raises(errors.Unavailable, match=r"cri\.sock: the upstream is unavailable$"):
        await client.sandboxes()
    async with CriClient(tmp_path / "none.sock") as disconnected:
        with pytest.raises(errors.Unavailable, match=r"none\.sock: connection failed: No such file"):
            await disconnected.sandboxes()
