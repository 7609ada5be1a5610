"""OpenTelemetry spans: one for each CRI call, with a child span for each phase in the lifecycle of a pod.

Imported only when ``[tracing]`` names an endpoint. The kubelet's trace context (W3C ``traceparent`` in the
call's metadata) makes our spans children of the kubelet's. The SDK's own variables apply
(``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_SCHEDULE_DELAY`` ...).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import noderuntime
from noderuntime.core.blocking import apart
from noderuntime.core.errors import DeadlineExceeded
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.metrics.base import Metadata, Metrics, Pulls

_CLOSE_SECONDS = 2.0


class Traced(Metrics):
    """Adds spans to other metrics."""

    def __init__(self, counted: Metrics, endpoint: str) -> None:
        """Export to an OTLP/gRPC endpoint (``http://`` or ``https://``, host and port) in the background."""
        self._counted = counted
        resource = Resource.create(
            {
                "service.name": "noderuntime",
                "service.version": noderuntime.__version__,
                "host.name": socket.gethostname(),
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("noderuntime", noderuntime.__version__)
        self._propagator = TraceContextTextMapPropagator()

    async def close(self) -> None:
        """Export pending spans, for at most two seconds: an unavailable collector does not delay shutdown."""
        try:
            await apart(self._provider.shutdown, what="export spans", seconds=_CLOSE_SECONDS, abandon=True)
        except DeadlineExceeded:
            return

    @contextmanager
    def call(self, path: str, metadata: Metadata) -> Iterator[None]:
        """Trace a CRI call as a span, a child of the caller's span if the metadata has one."""
        service, _, method = path.removeprefix("/").partition("/")
        carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
        with self._tracer.start_as_current_span(
            f"{service}/{method}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        ):
            yield

    @contextmanager
    def phase(self, phase: str, handler: str) -> Iterator[None]:
        """Trace a phase as a child span of its call."""
        attributes = {"noderuntime.handler": handler}
        with (
            self._tracer.start_as_current_span(phase, attributes=attributes),
            self._counted.phase(phase, handler),
        ):
            yield

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a CRI call."""
        self._counted.called(method, code, seconds)

    def upstream_failed(self, code: str) -> None:
        """Count an error of the upstream."""
        self._counted.upstream_failed(code)

    def reloaded(self, *, applied: bool) -> None:
        """Count a reload of the configuration."""
        self._counted.reloaded(applied=applied)

    def watch(self, ledger: Ledger) -> None:
        """Count the ledger's sandboxes and containers."""
        self._counted.watch(ledger)

    def watch_pulls(self, pulls: Pulls) -> None:
        """Count pulls."""
        self._counted.watch_pulls(pulls)

    def text(self) -> bytes:
        """Return the metrics as text."""
        return self._counted.text()
