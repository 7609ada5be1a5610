"""Dispatch of gRPC calls: every call arrives as bytes and is answered here or forwarded to the upstream.

    bytes ──► parse and check ──► our pod    ──► a verb of the services ──► bytes
                                  other pods ──► the same bytes to the upstream

Generated servicers are not used: they would parse every request, and they reject calls that the schema
does not contain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from noderuntime.core.errors import Unimplemented
from noderuntime.edge.router import passthrough as relay
from noderuntime.edge.router.passthrough import Context
from noderuntime.edge.router.router import Router
from noderuntime.edge.router.routes import Method, Route, methods
from noderuntime.edge.server import fields, requests
from noderuntime.edge.server.status import caller_left, end, ended_with
from noderuntime.lifecycle.metrics.base import OTHER_METHOD, Metadata, Metrics

_BATCH = 500
"""Entries of a streamed list per message. An entry with many labels can have 10 KiB; a message, 16 MiB."""

Verb = Callable[[Any], Awaitable[Message]]
EventVerb = Callable[[Any], AsyncGenerator[Message]]
_Unary = Callable[[bytes, Context], Awaitable[bytes]]
_Stream = Callable[[bytes, Context], AsyncGenerator[bytes]]
_Count = Callable[[str, float], None]
"""Counts a finished call by its code and duration (seconds)."""

_Trace = Callable[[Metadata], AbstractContextManager[None]]
"""Returns the span of a call."""

_CANCELLED = grpc.StatusCode.CANCELLED.name


class Extra(NamedTuple):
    """A call of a service other than CRI's, with a stream of responses."""

    request: type[Message]
    answer: EventVerb


_NOTHING: Mapping[str, Extra] = MappingProxyType({})


def verbs_of(*services: object) -> dict[str, Verb]:
    """Return the services' methods that are named like CRI calls."""
    return {
        method.name: getattr(service, method.name)
        for method in methods()
        for service in services
        if hasattr(service, method.name)
    }


class Dispatcher(grpc.GenericRpcHandler):
    """The handler of all calls, including calls that the schema does not contain.

    ``verbs`` implement the calls, by name; the verb of a streamed list returns the whole list.
    ``events`` implements GetContainerEvents, which never ends. ``extra`` are other services' calls, by path.
    """

    def __init__(
        self,
        router: Router,
        verbs: Mapping[str, Verb],
        events: EventVerb,
        metrics: Metrics,
        extra: Mapping[str, Extra] = _NOTHING,
    ) -> None:
        self._router = router
        self._metrics = metrics
        self._verbs = verbs
        self._events = events
        self._calls: set[asyncio.Task[Any]] = set()
        self._handlers = {method.path: self._handler(method) for method in methods()}
        self._handlers |= {path: self._extra(path, call) for path, call in extra.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the handler of a call. gRPC calls this for each call."""
        path = handler_call_details.method
        return self._handlers.get(path) or self._relay_unknown(path)

    async def drain(self, seconds: float) -> None:
        """Wait until the unary calls that are in progress now have ended, at most this long."""
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=seconds)

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        count = partial(self._metrics.called, method.name)
        trace = partial(self._metrics.call, method.path)
        if method.streams:
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(method.name, self._stream(method), count)
            )
        guarded = _guarded(method.name, self._unary(method), count, trace)
        return grpc.unary_unary_rpc_method_handler(self._in_progress(guarded))

    def _in_progress(self, serve: _Unary) -> _Unary:
        """Return a call that :meth:`drain` waits for."""

        async def call(raw: bytes, context: Context) -> bytes:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - gRPC runs each call in a task
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            return await serve(raw, context)

        return call

    def _extra(self, path: str, extra: Extra) -> grpc.RpcMethodHandler[bytes, bytes]:
        def serve(raw: bytes, _context: Context) -> AsyncGenerator[bytes]:
            return _serialized(extra.answer(requests.parsed(path, extra.request, raw)))

        count = partial(self._metrics.called, path)
        return grpc.unary_stream_rpc_method_handler(_guarded_stream(path, serve, count))

    def _unary(self, method: Method) -> _Unary:
        if method.route is Route.NODE:
            return lambda raw, _context: self._answer(method, requests.parse(method, raw))
        if method.route is Route.JOIN:
            return lambda raw, context: self._join(method, raw, context)
        if method.route is Route.UPSTREAM:
            return lambda raw, context: self._pass(method, raw, context)
        return lambda raw, context: self._by_owner(method, raw, context)

    def _stream(self, method: Method) -> _Stream:
        if method.route is Route.EVENTS:
            return lambda raw, context: self._merge_events(method, raw, context)
        if method.route is Route.JOIN:
            return lambda raw, context: self._join_stream(method, raw, context)
        return lambda raw, context: self._pass_stream(method, raw, context)

    async def _answer(self, method: Method, request: Any) -> bytes:
        """Answer the call with a verb."""
        return (await self._run_verb(method, request)).SerializeToString()

    async def _answer_in_batches(self, method: Method, request: Any) -> list[bytes]:
        """Return a list in as many messages as it needs."""
        answer = await self._run_verb(method, request)
        return [
            method.response(**{field.name: items[at : at + _BATCH]}).SerializeToString()
            for field, items in answer.ListFields()
            for at in range(0, len(items), _BATCH)
        ]

    async def _run_verb(self, method: Method, request: Any) -> Message:
        verb = self._verbs.get(method.name)
        if verb is None:
            raise Unimplemented(f"{method.name} is not supported for pods of noderuntime's handlers")
        fields.check(request)
        return await verb(request)

    async def _by_owner(self, method: Method, raw: bytes, context: Context) -> bytes:
        request = requests.parse(method, raw)
        upstream = self._router.upstream
        if await self._router.is_ours(method, request) or upstream is None:
            return await self._answer(method, request)
        return await relay.unary(upstream, method.path, raw, context)

    async def _pass(self, method: Method, raw: bytes, context: Context) -> bytes:
        if self._router.upstream is None:
            return await self._alone(method, raw)
        if requests.wants_check(method):
            requests.parse(method, raw)
        return await relay.unary(self._router.upstream, method.path, raw, context)

    async def _alone(self, method: Method, raw: bytes) -> bytes:
        """Answer a call that the upstream would answer, on a node without one."""
        if method.name not in self._verbs:
            raise Unimplemented(
                f"{method.name} is not supported: this node has no upstream runtime to forward it to"
            )
        return await self._answer(method, requests.parse(method, raw))

    async def _join(self, method: Method, raw: bytes, context: Context) -> bytes:
        request = requests.parse(method, raw)
        if self._router.upstream is None:
            return await self._answer(method, request)
        return await relay.joined(
            self._router.upstream, method.path, raw, context, lambda: self._answer(method, request)
        )

    async def _pass_stream(self, method: Method, raw: bytes, context: Context) -> AsyncGenerator[bytes]:
        if self._router.upstream is None:
            yield await self._alone(method, raw)
            return
        async with aclosing(relay.stream(self._router.upstream, method.path, raw, context)) as bodies:
            async for body in bodies:
                yield body

    async def _join_stream(self, method: Method, raw: bytes, context: Context) -> AsyncGenerator[bytes]:
        request = requests.parse(method, raw)
        if self._router.upstream is not None:
            async with aclosing(relay.stream(self._router.upstream, method.path, raw, context)) as bodies:
                async for body in bodies:
                    yield body
        for body in await self._answer_in_batches(method, request):
            yield body

    async def _merge_events(self, method: Method, raw: bytes, context: Context) -> AsyncGenerator[bytes]:
        events = _serialized(self._events(requests.parse(method, raw)))
        upstream = self._router.upstream
        if upstream is not None:
            events = relay.merged_stream(upstream, method.path, raw, context, events)
        async with aclosing(events):
            async for body in events:
                yield body

    def _relay_unknown(self, path: str) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Forward a call that the schema does not contain; None (UNIMPLEMENTED) without an upstream.

        It can have one response or many. Like every CRI call, it must have exactly one request.
        """
        upstream = self._router.upstream
        if upstream is None:
            return None
        return grpc.unary_stream_rpc_method_handler(
            _guarded_stream(
                path,
                lambda raw, context: relay.stream(upstream, path, raw, context),
                partial(self._metrics.called, OTHER_METHOD),
            )
        )


def _guarded(name: str, serve: _Unary, count: _Count, trace: _Trace) -> Any:
    async def guarded(raw: bytes, context: Context) -> bytes:
        try:
            with _counted(count), trace(context.invocation_metadata()):
                return await serve(raw, context)
        except Exception as error:
            await end(context, name, error)

    return guarded


def _guarded_stream(name: str, serve: _Stream, count: _Count) -> Any:
    """Return a handler that writes the messages itself: gRPC does not close a generator that it drops."""

    async def guarded(raw: bytes, context: Context) -> None:
        try:
            with _counted(count):
                async with aclosing(serve(raw, context)) as bodies:
                    async for body in bodies:
                        await context.write(body)
        except Exception as error:
            await end(context, name, error)

    return guarded


@contextmanager
def _counted(count: _Count) -> Iterator[None]:
    """Count a call before its caller gets the outcome.

    RuntimeError for a cancellation that did not come from gRPC, which would never answer the call then.
    """
    began, code = time.perf_counter(), _CANCELLED
    try:
        with _own_cancellation_is_a_failure():
            yield
        code = grpc.StatusCode.OK.name
    except Exception as error:
        code = ended_with(error).name
        raise
    finally:
        count(code, time.perf_counter() - began)


@contextmanager
def _own_cancellation_is_a_failure() -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError as error:
        if caller_left():
            raise
        raise RuntimeError("the call was cancelled from within") from error


async def _serialized(messages: AsyncGenerator[Message]) -> AsyncGenerator[bytes]:
    async with aclosing(messages):
        async for message in messages:
            yield message.SerializeToString()
