"""The one place that turns errors into gRPC status."""

from __future__ import annotations

import inspect

import grpc
import pytest

from noderuntime.core import errors
from noderuntime.edge.router.upstream import UpstreamStatus
from noderuntime.edge.server.status import end, status_of

LEAVES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.NoderuntimeError) and kind is not errors.NoderuntimeError
]


class Aborted(Exception):
    pass


class Context:
    """Remembers how the call ended."""

    def __init__(self) -> None:
        self.ended: tuple[object, ...] = ()

    async def abort(self, code: grpc.StatusCode, details: str, trailing: object = ()) -> None:
        self.ended = (code, details, trailing)
        raise Aborted


@pytest.mark.parametrize("kind", LEAVES, ids=lambda k: k.__name__)
def test_error_has_the_code_of_its_name(kind: type[errors.NoderuntimeError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "words")
    code, details = status_of(error)
    words = "".join(word.title() for word in code.name.split("_"))
    assert words == kind.__name__ or (issubclass(kind, errors.Internal) and code is grpc.StatusCode.INTERNAL)
    assert details == "words"


def test_details_are_one_line_of_limited_length() -> None:
    _, details = status_of(errors.ToolError("runc", "create", 1, "first\nsecond\t" + "x" * 9000))
    assert "\n" not in details
    assert len(details) <= 2000


async def test_unexpected_error_does_not_expose_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = Context()
    with pytest.raises(Aborted):
        await end(context, "Version", ValueError("secret"))  # type: ignore[arg-type]
    assert context.ended == (
        grpc.StatusCode.INTERNAL,
        "internal error (ValueError); the daemon's log has more",
        (),
    )


async def test_upstream_status_is_passed_on_unchanged() -> None:
    context = Context()
    output = UpstreamStatus(grpc.StatusCode.UNKNOWN, "two\nlines", (("grpc-status-details-bin", b"\x00"),))
    with pytest.raises(Aborted):
        await end(context, "Version", output)  # type: ignore[arg-type]
    assert context.ended == (output.code, output.details, output.trailing)
